"""What a release carries, sealed: secrets by name, TLS identities, the lease key (protocol/README.md section 1.1, `bundle`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import Fields, octets, text
from runtime.protocol.messages import one_of

BUNDLE_MAX = 1 << 20
"""Bytes of a sealed bundle."""

Delivery: TypeAlias = Literal["env", "file"]
_FILE_MODES = range(0o1000)


class SecretValue:
    """Bytes that no format, log or traceback shows. `reveal()` is the one way to them, and easy to search for."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "SecretValue(not shown)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret: as an environment variable, or as a file of a name and a mode (default 0400)."""

    delivery: Delivery
    value: SecretValue
    file_name: str | None = None
    file_mode: int = 0o400


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredIdentity:
    """A certificate chain (DER, leaf first) for DNS names. `key` is PKCS#8; None when the leaf is for the key in the enclave's request."""

    names: tuple[str, ...]
    chain: tuple[bytes, ...]
    key: SecretValue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the enclave must know of a release in order to renew it; the key is 32 bytes."""

    lease_id: bytes
    key: SecretValue
    bundle_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`version` strictly increases for one enclave_id; `root_key` is what application keys are derived from."""

    version: int
    lease_key: SecretValue
    secrets: Mapping[str, Secret]
    identities: tuple[DeliveredIdentity, ...]
    root_key: SecretValue | None = None

    def encode(self) -> bytes:
        """The plaintext of a seal."""
        message: dict[int, object] = {
            0: self.version,
            1: self.lease_key.reveal(),
            2: {name: _secret_map(secret) for name, secret in self.secrets.items()},
            3: [_identity_map(identity) for identity in self.identities],
        }
        if self.root_key is not None:
            message[4] = self.root_key.reveal()
        return cbor.encode(message)

    @classmethod
    def decode(cls, data: bytes) -> "Bundle":
        """Strict. Raises `Malformed`."""
        fields = Fields(cbor.decode(data, max_size=BUNDLE_MAX), "bundle")
        secrets = fields.take(2)
        if type(secrets) is not dict:
            raise Malformed("bundle.2 must be a map")
        bundle = cls(
            version=fields.uint(0),
            lease_key=SecretValue(fields.octets(1, size=32)),
            secrets={text(name, "a secret's name", least=1, most=128): _secret(entry) for name, entry in secrets.items()},
            identities=fields.array(3, _identity, most=16),
            root_key=SecretValue(fields.octets(4, size=32)) if 4 in fields else None,
        )
        fields.finish()
        return bundle


def _secret_map(secret: Secret) -> dict[int, object]:
    message: dict[int, object] = {0: secret.delivery, 1: secret.value.reveal()}
    if secret.delivery == "file":
        message |= {2: secret.file_name, 3: secret.file_mode}
    return message


def _secret(value: Value) -> Secret:
    fields = Fields(value, "secret")
    file = one_of(fields.text(0), get_args(Delivery), "secret.0") == "file"
    secret_value = fields.octets(1)
    if not file and b"\0" in secret_value:
        raise Malformed("an environment variable cannot hold a NUL byte")
    secret = Secret(
        delivery="file" if file else "env",
        value=SecretValue(secret_value),
        file_name=_file_name(fields.text(2, least=1, most=128)) if file else None,
        file_mode=fields.uint(3, most=_FILE_MODES[-1]) if file and 3 in fields else 0o400,
    )
    fields.finish()
    return secret


def _file_name(name: str) -> str:
    if "/" in name or "\0" in name or name in (".", ".."):
        raise Malformed("a secret's file name is one path component")
    return name


def _identity_map(identity: DeliveredIdentity) -> dict[int, object]:
    message: dict[int, object] = {0: identity.names, 1: identity.chain}
    return message if identity.key is None else message | {2: identity.key.reveal()}


def _identity(value: Value, what: str) -> DeliveredIdentity:
    fields = Fields(value, what)
    identity = DeliveredIdentity(
        names=fields.array(0, lambda name, what: text(name, what, least=1, most=253), least=1),
        chain=fields.array(1, lambda der, what: octets(der, what, least=1, most=16384), least=1, most=8),
        key=SecretValue(fields.octets(2, least=1, most=16384)) if 2 in fields else None,
    )
    fields.finish()
    return identity
