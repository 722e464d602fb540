"""user_data: three kinds that can never be taken for one another."""

from hashlib import sha384
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.binding import (
    USER_DATA_MAX,
    AppBinding,
    ProvBinding,
    PublicBinding,
    decode_binding,
    encode_app,
    encode_prov,
    encode_public,
    spki_digest,
)
from runtime.protocol.errors import Malformed

DIGEST = st.binary(min_size=48, max_size=48)
EXPORTER = st.none() | st.binary(min_size=32, max_size=32)


@given(DIGEST)
def test_evidence_for_a_provisioner_reads_back(transcript: bytes) -> None:
    assert decode_binding(encode_prov(transcript)) == ProvBinding(transcript=transcript)


@given(DIGEST, EXPORTER, DIGEST)
def test_evidence_for_a_client_reads_back(key: bytes, exporter: bytes | None, config: bytes) -> None:
    encoded = encode_public(spki_digest=key, exporter=exporter, config_digest=config)
    assert decode_binding(encoded) == PublicBinding(spki_digest=key, exporter=exporter, config_digest=config)


@given(st.binary(max_size=400))
def test_whatever_an_application_asks_for_stays_its_own_kind(challenge: bytes) -> None:
    assert decode_binding(encode_app(challenge)) == AppBinding(challenge=challenge)
    assert len(encode_app(challenge)) <= len(challenge) + 13


def test_an_application_cannot_make_another_kind() -> None:
    for forged in (encode_prov(bytes(48)), encode_public(spki_digest=bytes(48), exporter=bytes(32), config_digest=bytes(48))):
        assert decode_binding(encode_app(forged)) == AppBinding(challenge=forged)


def test_the_digest_of_a_key_is_sha_384() -> None:
    assert spki_digest(b"spki") == sha384(b"spki").digest()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {0: "prov/1"},
        {0: "prov/2", 1: bytes(48)},
        {0: b"prov/1", 1: bytes(48)},
        {0: "prov/1", 1: bytes(47)},
        {0: "prov/1", 1: "x" * 48},
        {0: "prov/1", 1: bytes(48), 2: bytes(32)},
        {0: "public", 1: bytes(48)},
        {0: "public", 1: bytes(48), 2: bytes(31), 3: bytes(48)},
        {0: "public", 1: bytes(48), 2: None, 3: bytes(48)},
        {0: "public", 1: bytes(32), 3: bytes(48)},
        {0: "public", 1: bytes(48), 3: bytes(48), 4: 0},
        {0: "app"},
        {0: "app", 1: "challenge"},
        {0: "app", 1: b"", 2: b""},
        {1: bytes(48)},
        [0, "app"],
        "app",
        None,
    ],
    ids=repr,
)
def test_another_shape_is_malformed(value: Any) -> None:
    with pytest.raises(Malformed):
        decode_binding(cbor.encode(value))


def test_user_data_over_its_size_is_malformed() -> None:
    with pytest.raises(Malformed) as refused:
        decode_binding(encode_app(bytes(USER_DATA_MAX)))
    assert refused.value.reason == "too_large"
