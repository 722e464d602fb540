"""A release: the signed envelope around a sealed bundle (protocol/README.md section 1.1, `release`, `header`, `key-statement`).

Two keys stand behind it. A *root key* is pinned in the measured enclave.toml and stays offline; it signs statements that name
*release keys* for a time. A release key signs releases, and lives in the provisioner.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runtime.protocol import cbor, cose
from runtime.protocol.bundle import BUNDLE_MAX
from runtime.protocol.cbor import MESSAGE_MAX, Value
from runtime.protocol.digest import digest_of
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.fields import Fields

RELEASE_MAX = BUNDLE_MAX + MESSAGE_MAX
_KEY_AAD = cbor.encode("prov/1 key")
_FIRST_IGNORED_KEY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatement:
    """Names a release key. Times are unix seconds; `public_key` is Ed25519, 32 bytes."""

    kid: str
    public_key: bytes
    not_before: int
    not_after: int

    def sign(self, root_key: Ed25519PrivateKey) -> bytes:
        """The statement as COSE_Sign1."""
        payload = cbor.encode({0: self.kid, 1: self.public_key, 2: self.not_before, 3: self.not_after})
        return cose.sign_ed25519(root_key, payload, external_aad=_KEY_AAD)

    @classmethod
    def open(cls, statement: bytes, roots: tuple[bytes, ...], *, now: int) -> "KeyStatement":
        """The statement, signed by one of `roots` (Ed25519 keys, 32 bytes each) and valid at `now` (unix seconds).

        Raises `Malformed`, or `Refused` with "key_not_pinned" or "key_not_valid_now".
        """
        fields = Fields(cbor.decode(_payload_of(statement, roots)), "key-statement")
        opened = cls(
            kid=fields.text(0, least=1, most=64),
            public_key=fields.octets(1, size=32),
            not_before=fields.uint(2),
            not_after=fields.uint(3),
        )
        fields.finish()
        if not opened.not_before <= now <= opened.not_after:
            raise Refused("key_not_valid_now", f"the statement of release key {opened.kid} is not valid at {now}")
        return opened


def _payload_of(statement: bytes, roots: tuple[bytes, ...]) -> bytes:
    for root in roots:
        try:
            return cose.open_ed25519(
                statement, Ed25519PublicKey.from_public_bytes(root), external_aad=_KEY_AAD, max_size=MESSAGE_MAX
            )
        except Refused:
            continue
    raise Refused("key_not_pinned", "the release key's statement is signed by no pinned root key")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHeader:
    """The readable part. `issued` is unix seconds; `epoch` is the one that the provisioner believes this build to have."""

    version: int
    suite: int
    enclave_id: str
    lease_id: bytes
    issued: int
    lease_seconds: int
    renew_after_seconds: int
    epoch: int
    key_statement: bytes

    def to_value(self) -> dict[int, object]:
        """The header's map."""
        return {
            0: self.version,
            1: self.suite,
            2: self.enclave_id,
            3: self.lease_id,
            4: self.issued,
            5: self.lease_seconds,
            6: self.renew_after_seconds,
            7: self.epoch,
            8: cbor.decode(self.key_statement),
        }

    @classmethod
    def from_value(cls, value: Value) -> "ReleaseHeader":
        """The header of a map; integer keys from 64 on are passed over. Raises `Malformed`."""
        fields = Fields(value, "header")
        header = cls(
            version=fields.uint(0, most=255),
            suite=fields.uint(1, most=255),
            enclave_id=fields.text(2, least=1, most=128),
            lease_id=fields.octets(3, size=16),
            issued=fields.uint(4),
            lease_seconds=fields.uint(5),
            renew_after_seconds=fields.uint(6),
            epoch=fields.uint(7),
            key_statement=cbor.encode(fields.take(8)),
        )
        fields.finish(ignore_from=_FIRST_IGNORED_KEY)
        return header


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedRelease:
    """A release taken apart, nothing verified. `header_digest` is of the header as received, ignored keys included."""

    header: ReleaseHeader
    header_digest: bytes
    sealed: bytes
    data: bytes

    @classmethod
    def decode(cls, data: bytes) -> "UnverifiedRelease":
        """Raises `Malformed`."""
        payload, _ = cose.split_ed25519(data, max_size=RELEASE_MAX)
        match cbor.decode(payload, max_size=RELEASE_MAX):
            case {0: header, 1: bytes(sealed), **rest} if not rest:
                return cls(header=ReleaseHeader.from_value(header), header_digest=digest_of(header), sealed=sealed, data=data)
            case _:
                raise Malformed("a release is a map of a header and a sealed bundle")

    def verify(self, release_key: bytes, transcript: bytes) -> None:
        """Refuses ("bad_signature") a release that this key did not sign for this transcript."""
        cose.open_ed25519(self.data, Ed25519PublicKey.from_public_bytes(release_key), external_aad=transcript, max_size=RELEASE_MAX)


def sign_release(key: Ed25519PrivateKey, header: ReleaseHeader, sealed: bytes, transcript: bytes) -> bytes:
    """The release message."""
    return cose.sign_ed25519(key, cbor.encode({0: header.to_value(), 1: sealed}), external_aad=transcript)


def seal_info(transcript: bytes, document_digest: bytes, header_digest: bytes) -> bytes:
    """`info` of the seal: it opens only for this transcript, this document and this header."""
    return digest_of(["prov/1 seal", transcript, document_digest, header_digest])
