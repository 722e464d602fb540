"""What an attestation document commits to by its `user_data`: three kinds that can never be taken for one another.

`"prov/1"` is evidence for a provisioner, `"public"` evidence for a client of the public port, `"app"` whatever an application asked for.
"""

from dataclasses import dataclass
from typing import TypeAlias

from runtime.protocol import cbor
from runtime.protocol.digest import SIZE, digest
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import Fields

PUBLIC_EXPORTER_LABEL = b"EXPORTER-enclave-attestation"
PROV_EXPORTER_LABEL = b"EXPORTER-prov-1"
EXPORTER_SIZE = 32
USER_DATA_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvBinding:
    """Evidence for a provisioner: `transcript` is T, 48 bytes."""

    transcript: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicBinding:
    """Evidence for a client: the TLS leaf's key, this connection (None in an answer that may be cached), the measured config."""

    spki_digest: bytes
    exporter: bytes | None
    config_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AppBinding:
    """A document that an application asked for."""

    challenge: bytes


Binding: TypeAlias = ProvBinding | PublicBinding | AppBinding


def spki_digest(spki_der: bytes) -> bytes:
    """`H` of a DER SubjectPublicKeyInfo."""
    return digest(spki_der)


def encode_prov(transcript: bytes) -> bytes:
    """The user_data of evidence for a provisioner."""
    return cbor.encode({0: "prov/1", 1: transcript})


def encode_public(*, spki_digest: bytes, exporter: bytes | None, config_digest: bytes) -> bytes:
    """The user_data of evidence for a client."""
    fields: dict[int, object] = {0: "public", 1: spki_digest, 3: config_digest}
    return cbor.encode(fields if exporter is None else fields | {2: exporter})


def encode_app(challenge: bytes) -> bytes:
    """The user_data of a document for an application: at most 13 bytes longer than `challenge`."""
    return cbor.encode({0: "app", 1: challenge})


def decode_binding(user_data: bytes) -> Binding:
    """The binding that a document's user_data holds. Raises `Malformed`."""
    fields = Fields(cbor.decode(user_data, max_size=USER_DATA_MAX), "user_data")
    binding: Binding
    match fields.text(0):
        case "prov/1":
            binding = ProvBinding(transcript=fields.octets(1, size=SIZE))
        case "public":
            binding = PublicBinding(
                spki_digest=fields.octets(1, size=SIZE),
                exporter=fields.octets(2, size=EXPORTER_SIZE) if 2 in fields else None,
                config_digest=fields.octets(3, size=SIZE),
            )
        case "app":
            binding = AppBinding(challenge=fields.octets(1))
        case _:
            raise Malformed("user_data of an unknown kind")
    fields.finish()
    return binding
