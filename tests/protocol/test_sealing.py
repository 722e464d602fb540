"""The three suites: a seal opens with its key and its info alone, and a key that is none seals nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.protocol.bundle import Bundle, Secret, SecretValue
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.sealing import SealingKey, Suite, generate_key, load_public_key, open_sealed, seal

KEYS = {suite: generate_key(suite) for suite in Suite}
SIZES = {Suite.X25519: 32, Suite.P256: 65, Suite.X_WING: 1216}
ENC_SIZES = {Suite.X25519: 32, Suite.P256: 65, Suite.X_WING: 1120}
INFO = b"\x01" * 48
BUNDLE = Bundle(
    version=1, lease_key=SecretValue(b"\x02" * 32), secrets={"A": Secret(delivery="env", value=SecretValue(b"v"))}, identities=()
).encode()
SEALED = {suite: seal(suite, key.public, BUNDLE, info=INFO) for suite, key in KEYS.items()}
EACH = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)


def refuse(key: SealingKey, sealed: bytes, info: bytes = INFO) -> None:
    with pytest.raises(Refused) as refused:
        open_sealed(key, sealed, info=info)
    assert refused.value.reason == "seal_broken"


@EACH
def test_a_seal_opens_with_its_key_and_its_info(suite: Suite) -> None:
    key = KEYS[suite]
    assert (len(key.public), key.suite) == (SIZES[suite], suite)
    assert len(SEALED[suite]) == ENC_SIZES[suite] + len(BUNDLE) + 16
    assert open_sealed(key, SEALED[suite], info=INFO) == BUNDLE
    assert BUNDLE not in SEALED[suite]


@EACH
def test_no_two_seals_are_alike_and_no_two_keys(suite: Suite) -> None:
    key = KEYS[suite]
    assert seal(suite, key.public, BUNDLE, info=INFO) != SEALED[suite]
    assert generate_key(suite).public != key.public


@EACH
@settings(max_examples=30)
@given(st.binary(max_size=80))
def test_any_other_info_does_not_open(suite: Suite, info: bytes) -> None:
    if info != INFO:
        refuse(KEYS[suite], SEALED[suite], info)


@EACH
def test_neither_another_key_nor_another_suites_key_opens(suite: Suite) -> None:
    refuse(generate_key(suite), SEALED[suite])
    for other, key in KEYS.items():
        if other is not suite:
            refuse(key, SEALED[suite])


@EACH
def test_a_flipped_bit_in_any_byte_of_a_sealed_bundle_breaks_it(suite: Suite) -> None:
    for position in range(len(SEALED[suite])):
        altered = bytearray(SEALED[suite])
        altered[position] ^= 0x40
        refuse(KEYS[suite], bytes(altered))


@EACH
def test_a_sealed_bundle_cut_at_any_length_or_lengthened_is_broken(suite: Suite) -> None:
    for length in range(len(SEALED[suite])):
        refuse(KEYS[suite], SEALED[suite][:length])
    refuse(KEYS[suite], SEALED[suite] + b"\0")


@EACH
@given(st.binary(max_size=1300))
def test_any_bytes_open_to_nothing(suite: Suite, sealed: bytes) -> None:
    refuse(KEYS[suite], sealed)


@EACH
@given(st.binary(max_size=1300))
def test_any_bytes_are_a_public_key_or_malformed(suite: Suite, raw: bytes) -> None:
    try:
        load_public_key(suite, raw)
    except Malformed as error:
        reason = error.reason
    else:
        reason = "hpke_key" if len(raw) == SIZES[suite] else "a key of another size"
    assert reason == "hpke_key"


@EACH
def test_a_public_key_of_another_size_is_malformed(suite: Suite) -> None:
    public = KEYS[suite].public
    for raw in (b"", public[:-1], public + b"\0", public * 2, *(KEYS[other].public for other in Suite if other is not suite)):
        with pytest.raises(Malformed) as refused:
            seal(suite, raw, BUNDLE, info=INFO)
        assert refused.value.reason == "hpke_key"


P = 2**255 - 19
LOW_ORDER = {
    "0": 0,
    "1": 1,
    "of order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "of order 8, the other": 39382357235489614581723060781553021112529911719440698176882885853963445705823,
    "p - 1": P - 1,
    "p": P,
    "p + 1": P + 1,
}


@pytest.mark.parametrize("point", LOW_ORDER.values(), ids=list(LOW_ORDER))
@pytest.mark.parametrize("top_bit", [0, 0x80], ids=["plain", "with the ignored bit"])
def test_a_point_of_small_order_gets_nothing_sealed(point: int, top_bit: int) -> None:
    """RFC 9180 section 7.1.4: the shared secret would be zero, so that anyone could open it."""
    encoded = bytearray(point.to_bytes(32, "little"))
    encoded[31] |= top_bit
    for suite, raw in ((Suite.X25519, bytes(encoded)), (Suite.X_WING, KEYS[Suite.X_WING].public[:1184] + bytes(encoded))):
        with pytest.raises(Refused) as refused:
            seal(suite, raw, BUNDLE, info=INFO)
        assert refused.value.reason == "hpke_key"


@pytest.mark.parametrize("point", LOW_ORDER.values(), ids=list(LOW_ORDER))
def test_a_seal_from_a_point_of_small_order_does_not_open(point: int) -> None:
    refuse(KEYS[Suite.X25519], point.to_bytes(32, "little") + SEALED[Suite.X25519][32:])


def p256_forms() -> dict[str, bytes]:
    public = KEYS[Suite.P256].public
    x, y = public[1:33], public[33:]
    field = 2**256 - 2**224 + 2**192 + 2**96 - 1
    parity = y[-1] & 1
    return {
        "compressed": bytes((2 + parity,)) + x,
        "compressed, padded": (bytes((2 + parity,)) + x).ljust(65, b"\0"),
        "hybrid": bytes((6 + parity,)) + x + y,
        "infinity": b"\0",
        "infinity, padded": bytes(65),
        "zero": b"\x04" + bytes(64),
        "off the curve": b"\x04" + x + y[:-1] + bytes((y[-1] ^ 1,)),
        "coordinates traded": b"\x04" + y + x,
        "coordinates over the field": b"\x04" + field.to_bytes(32, "big") + field.to_bytes(32, "big"),
        "no prefix": x + y,
    }


@pytest.mark.parametrize("raw", p256_forms().values(), ids=list(p256_forms()))
def test_what_is_no_uncompressed_point_of_p256_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        seal(Suite.P256, raw, BUNDLE, info=INFO)
    assert refused.value.reason == "hpke_key"


def test_an_ml_kem_key_with_a_coefficient_over_the_modulus_is_malformed() -> None:
    """FIPS 203 section 7.2, the modulus check: 0xfff is over 3329."""
    with pytest.raises(Malformed) as refused:
        seal(Suite.X_WING, b"\xff" * 1184 + KEYS[Suite.X_WING].public[1184:], BUNDLE, info=INFO)
    assert refused.value.reason == "hpke_key"


@EACH
def test_a_sealing_key_never_shows_its_private_half(suite: Suite) -> None:
    shown = f"{KEYS[suite]} {KEYS[suite]!r}"
    assert shown.count("private key not shown") == 2
    assert "PrivateKey object" not in shown
