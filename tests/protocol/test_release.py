"""A release taken apart: statements of pinned roots, headers that may grow, and a digest over what was received."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor, cose
from runtime.protocol.digest import digest, digest_of
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.release import RELEASE_MAX, KeyStatement, ReleaseHeader, UnverifiedRelease, seal_info, sign_release
from tests.protocol.handshakes import BEGIN, END, NOW, RELEASE_KEY, ROOT, SECOND_ROOT, STRANGER, header, statement
from tests.protocol.prov_messages import UINT, octets, text

TRANSCRIPT = b"\x77" * 48
PINNED = (SECOND_ROOT.public_key().public_bytes_raw(), ROOT.public_key().public_bytes_raw())
AAD = cbor2.dumps("prov/1 key")
RELEASE = sign_release(RELEASE_KEY, header(), b"sealed", TRANSCRIPT)
HEADERS = st.builds(
    ReleaseHeader,
    version=st.integers(0, 255),
    suite=st.integers(0, 255),
    enclave_id=text(1, 128),
    lease_id=octets(16),
    issued=UINT,
    lease_seconds=UINT,
    renew_after_seconds=UINT,
    epoch=UINT,
    key_statement=st.just(statement()),
)


def refused_statement(data: bytes, *, roots: tuple[bytes, ...] = PINNED, now: int = NOW) -> str:
    with pytest.raises((Malformed, Refused)) as refused:
        KeyStatement.open(data, roots, now=now)
    return refused.value.reason


def signed_statement(value: object, *, root: Ed25519PrivateKey = ROOT, aad: bytes = AAD) -> bytes:
    return cose.sign_ed25519(root, cbor2.dumps(value, canonical=True), external_aad=aad)


# Statements


@pytest.mark.parametrize("root", [ROOT, SECOND_ROOT], ids=["second of the pinned", "first of the pinned"])
@pytest.mark.parametrize("now", [BEGIN, NOW, END])
def test_a_statement_of_any_pinned_root_holds_from_its_first_to_its_last_second(root: Ed25519PrivateKey, now: int) -> None:
    opened = KeyStatement.open(statement(root=root), PINNED, now=now)
    assert opened.public_key == RELEASE_KEY.public_key().public_bytes_raw()
    assert (opened.kid, opened.not_before, opened.not_after) == ("2026-a", BEGIN, END)


def test_a_statement_of_no_pinned_root_is_refused() -> None:
    assert refused_statement(statement(root=STRANGER)) == "key_not_pinned"
    assert refused_statement(statement(), roots=()) == "key_not_pinned"
    assert refused_statement(statement(root=RELEASE_KEY)) == "key_not_pinned"  # a release key vouches for nobody


@pytest.mark.parametrize("now", [0, BEGIN - 1, END + 1, 2**64 - 1])
def test_a_statement_outside_its_time_is_refused(now: int) -> None:
    assert refused_statement(statement(), now=now) == "key_not_valid_now"


def test_a_statement_whose_time_ends_before_it_begins_is_never_valid() -> None:
    for now in (BEGIN, NOW, END):
        assert refused_statement(statement(begin=END, end=BEGIN), now=now) == "key_not_valid_now"


def test_a_statement_is_signed_for_being_a_statement() -> None:
    fields = {0: "2026-a", 1: RELEASE_KEY.public_key().public_bytes_raw(), 2: BEGIN, 3: END}
    assert KeyStatement.open(signed_statement(fields), PINNED, now=NOW).kid == "2026-a"
    for aad in (b"", cbor2.dumps("prov/1 release"), TRANSCRIPT):
        assert refused_statement(signed_statement(fields, aad=aad)) == "key_not_pinned"


@pytest.mark.parametrize(
    "change",
    [
        {0: ""},
        {0: "x" * 65},
        {0: b"kid"},
        {1: bytes(31)},
        {1: bytes(33)},
        {1: "k" * 32},
        {2: -1},
        {3: None},
        {3: True},
        {4: 0},
        {64: 0},
    ],
    ids=repr,
)
def test_a_statement_of_another_shape_is_malformed(change: dict[int, Any]) -> None:
    fields = {0: "2026-a", 1: bytes(32), 2: BEGIN, 3: END}
    assert refused_statement(signed_statement(fields | change)) == "malformed"


@pytest.mark.parametrize("key", [0, 1, 2, 3])
def test_a_statement_lacks_no_field(key: int) -> None:
    fields = {0: "2026-a", 1: bytes(32), 2: BEGIN, 3: END}
    del fields[key]
    assert refused_statement(signed_statement(fields)) == "malformed"


def test_a_statement_with_any_byte_changed_is_refused() -> None:
    data = statement()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        assert refused_statement(bytes(altered))


# Headers


@given(HEADERS)
def test_every_legal_header_reads_back(value: ReleaseHeader) -> None:
    assert ReleaseHeader.from_value(cbor.decode(cbor.encode(value.to_value()))) == value


@pytest.mark.parametrize("key", [64, 65, 255, 2**32, 2**64 - 1])
def test_a_key_from_64_on_is_ignored_and_counts_in_the_digest(key: int) -> None:
    grown = header().to_value() | {key: "from a later version"}
    data = cose.sign_ed25519(RELEASE_KEY, cbor.encode({0: grown, 1: b"sealed"}), external_aad=TRANSCRIPT)
    release = UnverifiedRelease.decode(data)
    assert release.header == header()
    assert release.header_digest == digest(cbor2.dumps(cbor2.loads(cbor.encode(grown)), canonical=True))
    assert release.header_digest != UnverifiedRelease.decode(RELEASE).header_digest
    release.verify(RELEASE_KEY.public_key().public_bytes_raw(), TRANSCRIPT)


@pytest.mark.parametrize("key", [9, 10, 63, -1, -64, -100, "64", "x", b"\x40"], ids=repr)
def test_any_other_unknown_key_is_refused(key: Any) -> None:
    grown = cbor2.dumps(header().to_value() | {key: 0}, canonical=True)
    with pytest.raises(Malformed):
        ReleaseHeader.from_value(cbor.decode(grown))


@pytest.mark.parametrize("key", range(9))
def test_a_header_lacks_no_field(key: int) -> None:
    value = header().to_value()
    del value[key]
    with pytest.raises(Malformed):
        UnverifiedRelease.decode(cose.sign_ed25519(RELEASE_KEY, cbor.encode({0: value, 1: b"sealed"}), external_aad=TRANSCRIPT))


@pytest.mark.parametrize(
    "change",
    [
        {0: 256}, {0: True}, {1: 256}, {1: "1"}, {2: ""}, {2: "x" * 129}, {2: b"id"}, {3: bytes(15)}, {3: bytes(17)}, {4: -1}, {4: None},
        {5: -1}, {6: "1"}, {7: -1}, {7: False},
    ],
    ids=repr,
)  # fmt: skip
def test_a_header_of_another_shape_is_malformed(change: dict[int, Any]) -> None:
    payload = cbor.encode({0: header().to_value() | change, 1: b"sealed"})
    with pytest.raises(Malformed) as refused:
        UnverifiedRelease.decode(cose.sign_ed25519(RELEASE_KEY, payload, external_aad=TRANSCRIPT))
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize("other", [None, 0, b"", b"statement", "x", [], [b"", {}, b""], {}], ids=repr)
def test_a_header_without_a_statement_in_its_place_names_no_key(other: Any) -> None:
    payload = cbor.encode({0: header().to_value() | {8: other}, 1: b"sealed"})
    release = UnverifiedRelease.decode(cose.sign_ed25519(RELEASE_KEY, payload, external_aad=TRANSCRIPT))
    assert refused_statement(release.header.key_statement) == "malformed"


# Releases


def test_a_release_is_the_structure_of_the_specification() -> None:
    protected, unprotected, payload, signature = cbor2.loads(RELEASE)
    assert (cbor2.loads(protected), unprotected) == ({1: -8}, {})
    content, sealed = cbor2.loads(payload)[0], cbor2.loads(payload)[1]
    assert sealed == b"sealed"
    assert content[8] == cbor2.loads(statement())
    signed = cbor2.dumps(["Signature1", protected, TRANSCRIPT, payload])
    RELEASE_KEY.public_key().verify(signature, signed)


def test_the_info_of_a_seal_is_that_of_the_specification() -> None:
    parts = [b"\x01" * 48, b"\x02" * 48, b"\x03" * 48]
    assert seal_info(*parts) == digest(cbor2.dumps(["prov/1 seal", *parts]))
    assert len({seal_info(*order) for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]])}) == 3


@pytest.mark.parametrize(
    "value",
    [
        None, [], {}, {0: {}}, {1: b"sealed"}, {0: header().to_value(), 1: "sealed"}, {0: header().to_value(), 1: None},
        {0: header().to_value(), 1: b"sealed", 2: 0}, {0: header().to_value(), 1: b"sealed", 64: 0}, {0: [], 1: b""}, {0: b"", 1: b""},
        [header().to_value(), b"sealed"],
    ],
    ids=lambda value: f"{value!r:.50}",
)  # fmt: skip
def test_a_release_of_another_shape_is_malformed(value: Any) -> None:
    with pytest.raises(Malformed):
        UnverifiedRelease.decode(cose.sign_ed25519(RELEASE_KEY, cbor.encode(value), external_aad=TRANSCRIPT))


def test_a_release_cut_at_any_length_is_malformed() -> None:
    for length in range(len(RELEASE)):
        with pytest.raises(Malformed) as refused:
            UnverifiedRelease.decode(RELEASE[:length])
        assert refused.value.reason == "truncated"


@given(st.binary(max_size=300))
def test_any_bytes_give_a_release_or_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        UnverifiedRelease.decode(data)


@given(st.binary(max_size=200))
def test_any_payload_gives_a_release_or_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        UnverifiedRelease.decode(cose.sign_ed25519(RELEASE_KEY, payload, external_aad=TRANSCRIPT))


def test_a_release_over_its_size_is_refused_unread() -> None:
    with pytest.raises(Malformed) as refused:
        UnverifiedRelease.decode(b"\xff" * (RELEASE_MAX + 1))
    assert refused.value.reason == "too_large"


def test_a_release_is_verified_for_its_key_and_its_transcript() -> None:
    release = UnverifiedRelease.decode(RELEASE)
    own = RELEASE_KEY.public_key().public_bytes_raw()
    release.verify(own, TRANSCRIPT)
    for key, transcript in (
        (own, b"\x78" * 48),
        (own, b""),
        (STRANGER.public_key().public_bytes_raw(), TRANSCRIPT),
        (bytes(32), TRANSCRIPT),
    ):
        with pytest.raises(Refused) as refused:
            release.verify(key, transcript)
        assert refused.value.reason == "bad_signature"


@given(HEADERS)
def test_the_digest_of_a_header_is_that_of_its_map(value: ReleaseHeader) -> None:
    release = UnverifiedRelease.decode(sign_release(RELEASE_KEY, value, b"sealed", TRANSCRIPT))
    assert (release.header, release.sealed) == (value, b"sealed")
    assert release.header_digest == digest_of(value.to_value())
    assert release.header_digest != digest_of(
        replace(value, lease_id=bytes(16) if any(value.lease_id) else b"\x01" * 16).to_value()
    )
