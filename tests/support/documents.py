"""Makes attestation documents of Nitro's shape under a root of its own, any part of which can be other than it should be.

Nothing of the code under test is used: DER is written by der_writer, CBOR by cbor2 or by hand, and both are signed by `cryptography`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha1, sha384
from typing import Any, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import der_writer as der

NOW = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
MADE = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
INSTANCE = "i-0123456789abcdef0"
MODULE_ID = f"{INSTANCE}-enc0123456789abcdef"
NONCE = bytes(range(32))
USER_DATA = b"user data"
PROTECTED = bytes.fromhex("a1013822")

Key = ec.EllipticCurvePrivateKey


@cache
def key(number: int) -> Key:
    """A P-384 key, always the same for one number within a process."""
    return ec.generate_private_key(ec.SECP384R1())


def spki(private: Any) -> bytes:
    public: bytes = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public


def key_identifier(private: Any) -> bytes:
    return sha1(spki(private)).digest()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to write one certificate. None in a field means what is right in its place."""

    common_name: str
    key: Any
    basic: bytes = der.basic_constraints()
    usage: bytes = der.key_usage(der.DIGITAL_SIGNATURE, der.KEY_CERT_SIGN, der.CRL_SIGN)
    extra: bytes = b""
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None
    not_before: datetime = MADE - timedelta(days=1)
    not_after: datetime = MADE + timedelta(days=1)
    validity: bytes | None = None
    version: bytes = bytes.fromhex("a003020102")
    serial: bytes = der.integer(0x1234567890)
    inner_algorithm: bytes = der.ECDSA_SHA384
    algorithm: bytes = der.ECDSA_SHA384
    hash: type[HashAlgorithm] = SHA384
    issuer: bytes | None = None
    subject: bytes | None = None
    spki: bytes | None = None
    unique_ids: bytes = b""
    extensions: bytes | None = None
    signer: Key | None = None
    finish: Callable[[bytes], bytes] = bytes

    @property
    def name(self) -> bytes:
        return der.name(self.common_name) if self.subject is None else self.subject


@cache
def write_certificate(plan: Plan, parent: Plan) -> bytes:
    """The certificate of `plan`, issued by `parent`; one plan always gives the same bytes, for a signature is random."""
    subject_id = der.subject_key_id(key_identifier(plan.key)) if plan.subject_key_id is None else plan.subject_key_id
    authority_id = der.authority_key_id(key_identifier(parent.key)) if plan.authority_key_id is None else plan.authority_key_id
    extensions = plan.basic + plan.usage + subject_id + authority_id + plan.extra
    body = der.sequence(
        plan.version,
        plan.serial,
        plan.inner_algorithm,
        parent.name if plan.issuer is None else plan.issuer,
        der.sequence(der.utc_time(plan.not_before), der.utc_time(plan.not_after)) if plan.validity is None else plan.validity,
        plan.name,
        spki(plan.key) if plan.spki is None else plan.spki,
        plan.unique_ids,
        der.tlv(0xA3, der.sequence(extensions)) if plan.extensions is None else plan.extensions,
    )
    signature = (plan.signer or parent.key).sign(body, ec.ECDSA(plan.hash()))
    return plan.finish(der.sequence(body, plan.algorithm, der.bits(signature)))


@cache
def nitro_chain() -> tuple[Plan, ...]:
    """Root, region, zone, instance and module, as AWS makes them."""
    region = "us-east-1.aws.nitro-enclaves"
    return (
        Plan(
            common_name="aws.nitro-enclaves",
            key=key(0),
            authority_key_id=b"",
            not_before=MADE - timedelta(days=3650),
            not_after=datetime(2056, 1, 1, tzinfo=UTC),
        ),
        Plan(common_name=f"0123456789abcdef.{region}", key=key(1), basic=der.basic_constraints(path_length=2)),
        Plan(common_name=f"0123456789abcdef.zonal.{region}", key=key(2), basic=der.basic_constraints(path_length=1)),
        Plan(
            common_name=f"{INSTANCE}.{region}",
            key=key(3),
            basic=der.basic_constraints(path_length=0),
            usage=der.key_usage(der.KEY_CERT_SIGN),
        ),
        Plan(
            common_name=f"{MODULE_ID}.us-east-1.aws",
            key=key(4),
            basic=der.basic_constraints(ca=False),
            usage=der.key_usage(der.DIGITAL_SIGNATURE, der.NON_REPUDIATION, critical=False),
            subject_key_id=b"",
            authority_key_id=b"",
            not_before=MADE - timedelta(seconds=3),
            not_after=MADE + timedelta(hours=3),
        ),
    )


def altered(place: int, **changes: Any) -> tuple[Plan, ...]:
    """The Nitro chain with some fields of the certificate at `place` changed (0 is the root, 4 or -1 the leaf)."""
    plans = list(nitro_chain())
    plans[place] = replace(plans[place], **changes)
    return tuple(plans)


def write_chain(plans: Sequence[Plan]) -> tuple[bytes, ...]:
    return tuple(write_certificate(plan, plans[max(place - 1, 0)]) for place, plan in enumerate(plans))


@cache
def certificates() -> tuple[bytes, ...]:
    """The certificates of the unaltered chain; the first is the trusted root."""
    return write_chain(nitro_chain())


def trusted_root() -> x509.Certificate:
    return x509.load_der_x509_certificate(certificates()[0])


@dataclass(frozen=True)
class Raw:
    """CBOR that stands as it is."""

    encoded: bytes


class _Absent:
    """The type of `ABSENT`."""


ABSENT: Final = _Absent()


def pcrs() -> dict[int, bytes]:
    registers = {index: bytes(48) for index in range(16)}
    return registers | {0: b"\x01" * 48, 1: b"\x02" * 48, 2: b"\x03" * 48, 4: sha384(bytes(48) + INSTANCE.encode()).digest()}


def fields(chain: Sequence[bytes] | None = None) -> dict[str, Any]:
    chain = certificates() if chain is None else chain
    return {
        "module_id": MODULE_ID,
        "digest": "SHA384",
        "timestamp": int(MADE.timestamp() * 1000),
        "pcrs": pcrs(),
        "certificate": chain[-1],
        "cabundle": list(chain[:-1]),
        "public_key": None,
        "user_data": USER_DATA,
        "nonce": NONCE,
    }


def item(value: Any) -> bytes:
    return value.encoded if isinstance(value, Raw) else cbor2.dumps(value)


def payload(values: Mapping[str, Any], *, head: bytes = b"\xbf", tail: bytes = b"\xff", extra: bytes = b"") -> bytes:
    entries = b"".join(item(name) + item(value) for name, value in values.items() if value is not ABSENT)
    return head + entries + extra + tail


def sign(content: bytes, *, private: Key | None = None, protected: bytes = PROTECTED, hash_: HashAlgorithm | None = None) -> bytes:
    """r || s over the Sig_structure of `content`."""
    message = cbor2.dumps(["Signature1", protected, b"", content])
    r, s = decode_dss_signature((private or key(4)).sign(message, ec.ECDSA(hash_ or SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def envelope(content: bytes, *, signature: bytes | None = None) -> bytes:
    signature = sign(content) if signature is None else signature
    return b"\x84" + cbor2.dumps(PROTECTED) + b"\xa0" + cbor2.dumps(content) + cbor2.dumps(signature)


def document(chain: Sequence[bytes] | None = None, *, private: Key | None = None, **changes: Any) -> bytes:
    """A signed document; `changes` replace fields of the payload, in place or (new ones) at the end."""
    content = payload(fields(chain) | changes)
    return envelope(content, signature=sign(content, private=private))


def chained(plans: Sequence[Plan], **changes: Any) -> bytes:
    """A document whose chain is `plans`, signed by the last one's key where that is of the right kind."""
    return document(write_chain(plans), **changes)
