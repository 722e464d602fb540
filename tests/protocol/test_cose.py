"""COSE_Sign1 by EdDSA: what is signed, and that nothing else opens."""

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.cose import EDDSA, ES384, open_ed25519, sig_structure, sign_ed25519, split_ed25519
from runtime.protocol.errors import Malformed, Refused

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PROTECTED = cbor.encode({1: EDDSA})


def opened(data: bytes, *, key: Ed25519PrivateKey = KEY, aad: bytes = b"T", max_size: int = 4096) -> bytes:
    return open_ed25519(data, key.public_key(), external_aad=aad, max_size=max_size)


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_what_was_signed_opens(payload: bytes, aad: bytes) -> None:
    assert opened(sign_ed25519(KEY, payload, external_aad=aad), aad=aad) == payload


def test_the_signature_is_over_the_structure_of_the_rfc() -> None:
    """RFC 9052 section 4.4, the structure made by another implementation of CBOR."""
    protected, unprotected, payload, signature = cbor2.loads(sign_ed25519(KEY, b"payload", external_aad=b"aad"))
    assert (cbor2.loads(protected), unprotected, payload) == ({1: -8}, {}, b"payload")
    KEY.public_key().verify(signature, cbor2.dumps(["Signature1", protected, b"aad", b"payload"]))
    assert sig_structure(protected, b"aad", b"payload") == cbor2.dumps(["Signature1", protected, b"aad", b"payload"])


@pytest.mark.parametrize("position", range(len(sign_ed25519(KEY, b"pay", external_aad=b"T"))))
def test_a_changed_byte_anywhere_does_not_open(position: int) -> None:
    data = bytearray(sign_ed25519(KEY, b"pay", external_aad=b"T"))
    data[position] ^= 1
    with pytest.raises((Malformed, Refused)):
        opened(bytes(data))


def test_a_message_cut_short_anywhere_does_not_open() -> None:
    data = sign_ed25519(KEY, b"pay", external_aad=b"T")
    for length in range(len(data)):
        with pytest.raises(Malformed):
            opened(data[:length])


def test_another_key_or_other_additional_data_is_refused_by_name() -> None:
    data = sign_ed25519(KEY, b"pay", external_aad=b"T")
    for key, aad in ((OTHER, b"T"), (KEY, b"t"), (KEY, b"")):
        with pytest.raises(Refused) as refused:
            opened(data, key=key, aad=aad)
        assert refused.value.reason == "bad_signature"


def test_a_message_over_its_size_is_refused() -> None:
    data = sign_ed25519(KEY, bytes(100), external_aad=b"T")
    assert opened(data, max_size=len(data)) == bytes(100)
    with pytest.raises(Malformed) as refused:
        opened(data, max_size=len(data) - 1)
    assert refused.value.reason == "too_large"


SIGNATURE = bytes(64)


@pytest.mark.parametrize(
    "parts",
    [
        [cbor.encode({1: ES384}), {}, b"p", SIGNATURE],
        [cbor.encode({1: EDDSA, 4: b"kid"}), {}, b"p", SIGNATURE],
        [cbor.encode({}), {}, b"p", SIGNATURE],
        [b"", {}, b"p", SIGNATURE],
        [{1: EDDSA}, {}, b"p", SIGNATURE],
        [PROTECTED, {4: b"kid"}, b"p", SIGNATURE],
        [PROTECTED, None, b"p", SIGNATURE],
        [PROTECTED, [], b"p", SIGNATURE],
        [PROTECTED, {}, None, SIGNATURE],
        [PROTECTED, {}, "p", SIGNATURE],
        [PROTECTED, {}, b"p", SIGNATURE[:-1]],
        [PROTECTED, {}, b"p", SIGNATURE + b"\x00"],
        [PROTECTED, {}, b"p"],
        [PROTECTED, {}, b"p", SIGNATURE, b""],
        {0: PROTECTED},
        "text",
    ],
    ids=repr,
)
def test_another_shape_or_algorithm_is_malformed(parts: object) -> None:
    with pytest.raises(Malformed):
        split_ed25519(cbor.encode(parts), max_size=4096)


def test_a_tagged_message_is_malformed() -> None:
    with pytest.raises(Malformed) as refused:
        opened(b"\xd2" + sign_ed25519(KEY, b"pay", external_aad=b"T"))
    assert refused.value.reason == "cbor_tag"
