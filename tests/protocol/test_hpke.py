"""Sealing against another implementation of RFC 9180: what we seal it opens, what it seals we open. First that one is held to the RFC."""

from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.protocol.sealing import SealingKey, Suite, open_sealed, seal
from tests.support.hpke import AES_128_GCM, P256Kem, X25519Kem, XWingKem, key_schedule

INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
PLAINTEXT = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
AAD = bytes.fromhex("436f756e742d30")


def x25519_private(scalar: str) -> x25519.X25519PrivateKey:
    return x25519.X25519PrivateKey.from_private_bytes(bytes.fromhex(scalar))


def p256_private(scalar: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(scalar, 16), ec.SECP256R1())


VECTORS: dict[str, dict[str, Any]] = {
    "A.1.1 X25519": {
        "kem": X25519Kem(),
        "recipient": x25519_private("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"),
        "ephemeral": x25519_private("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736"),
        "public": "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
        "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        "shared": "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc",
        "key": "4531685d41d65f03dc48f6b8302c05b0",
        "nonce": "56d890e5accaaf011cff4b7d",
        "ciphertext": "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
    },
    "A.3.1 P-256": {
        "kem": P256Kem(),
        "recipient": p256_private("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2"),
        "ephemeral": p256_private("4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb"),
        "public": "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d30a"
        "d6aa8f80e30f1d128aafd68a2ce72ea0",
        "enc": "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403c"
        "e65c9bfcb9382657222d18c4",
        "shared": "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8",
        "key": "868c066ef58aae6dc589b6cfdd18f97e",
        "nonce": "4e0bc5018beba4bf004cca59",
        "ciphertext": "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434",
    },
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=list(VECTORS))
def test_the_other_implementation_keeps_the_vectors_of_the_rfc(vector: dict[str, Any]) -> None:
    """RFC 9180 appendices A.1.1 and A.3.1, base mode, with AES-128-GCM as there."""
    kem, public, enc = vector["kem"], bytes.fromhex(vector["public"]), bytes.fromhex(vector["enc"])
    shared = bytes.fromhex(vector["shared"])
    assert kem.encapsulate(public, vector["ephemeral"]) == (shared, enc)
    assert kem.decapsulate(enc, vector["recipient"]) == shared
    context = key_schedule(kem.kem_id, shared, INFO, aead=AES_128_GCM)
    assert (context.key.hex(), context.base_nonce.hex()) == (vector["key"], vector["nonce"])
    assert context.seal(PLAINTEXT, aad=AAD).hex() == vector["ciphertext"]


class Pair:
    """One key pair in both implementations' forms; `ephemeral` is for the other one's seal."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.kem: Any
        self.own: SealingKey
        self.other: Any
        x_key = x25519.X25519PrivateKey.generate()
        self.ephemeral: Any = x25519.X25519PrivateKey.generate()
        match suite:
            case Suite.X25519:
                self.kem, self.other = X25519Kem(), x_key
                self.own = SealingKey(suite=suite, private=x_key, public=x_key.public_key().public_bytes_raw())
            case Suite.P256:
                p_key = ec.generate_private_key(ec.SECP256R1())
                point = p_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                self.kem, self.other, self.ephemeral = P256Kem(), p_key, ec.generate_private_key(ec.SECP256R1())
                self.own = SealingKey(suite=suite, private=p_key, public=point)
            case Suite.X_WING:
                m_key = mlkem.MLKEM768PrivateKey.generate()
                public = m_key.public_key().public_bytes_raw() + x_key.public_key().public_bytes_raw()
                self.kem, self.other = XWingKem(), (m_key, x_key)
                self.own = SealingKey(suite=suite, private=hpke.MLKEM768X25519PrivateKey(m_key, x_key), public=public)


EACH = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)


@EACH
@settings(max_examples=25)
@given(st.binary(max_size=300), st.binary(max_size=80))
def test_the_other_implementation_opens_what_we_seal(suite: Suite, plaintext: bytes, info: bytes) -> None:
    pair = Pair(suite)
    sealed = seal(suite, pair.own.public, plaintext, info=info)
    enc, ciphertext = sealed[: pair.kem.enc_size], sealed[pair.kem.enc_size :]
    assert len(ciphertext) == len(plaintext) + 16
    context = key_schedule(pair.kem.kem_id, pair.kem.decapsulate(enc, pair.other), info)
    assert context.open(ciphertext) == plaintext
    with pytest.raises(InvalidTag):
        context.open(ciphertext, aad=b"any")


@EACH
@settings(max_examples=25)
@given(st.binary(max_size=300), st.binary(max_size=80))
def test_we_open_what_the_other_implementation_seals(suite: Suite, plaintext: bytes, info: bytes) -> None:
    pair = Pair(suite)
    shared, enc = pair.kem.encapsulate(pair.own.public, pair.ephemeral)
    sealed = enc + key_schedule(pair.kem.kem_id, shared, info).seal(plaintext)
    assert open_sealed(pair.own, sealed, info=info) == plaintext
