"""A public key infrastructure with the shape of the one behind Nitro's documents, under a root that this machine makes.

Runs on a developer's machine or in tests, never in an image. Names, lifetimes and extensions are those of genuine chains: root, region,
zone, instance, leaf, all P-384 with ecdsa-with-SHA384. Whoever trusts `root.pem` trusts whoever can read `root.key`: no secret of any
value may ever depend on it. Its names say so, and are not AWS's.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from runtime.provisioner.ca import key_usage

ROOT_NAME = "dev.nitro-enclaves"
DEFAULT_REGION = "xx-simulated-1"

ROOT_LIFE = timedelta(days=365 * 30)
REGION_LIFE = timedelta(days=20)
ZONE_LIFE = timedelta(days=6)
INSTANCE_LIFE = timedelta(days=1)
LEAF_LIFE = timedelta(hours=3, seconds=3)
LEAF_LEFT_LEAST = timedelta(minutes=40)
"""A leaf with less than this left is replaced; genuine documents had 38 minutes left at the least."""

_CA_USAGE = key_usage("digital_signature", "key_cert_sign", "crl_sign")
_INSTANCE_USAGE = key_usage("key_cert_sign")
_LEAF_USAGE = key_usage("digital_signature", "content_commitment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a document is signed with: the leaf and the CA certificates above it, root first, as `cabundle` has them."""

    leaf: Authority
    cabundle: tuple[bytes, ...]


def open_root(folder: Path, *, now: datetime) -> Authority:
    """The root kept in `folder` as root.pem and root.key (mode 0600), made at the first call. Several processes may share it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not (folder / "root.pem").exists():
            root = make_root(now=now)
            private = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(folder / "root.key", private, 0o600)  # first: a certificate in the folder always has its key
            _write(folder / "root.pem", root.certificate.public_bytes(Encoding.PEM), 0o644)
        key = load_pem_private_key((folder / "root.key").read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError(f"root.key in {folder} is not the key of root.pem")
    return Authority(certificate=certificate, key=key)


def make_root(*, now: datetime) -> Authority:
    """A new development root that is kept nowhere."""
    return _issue(
        ROOT_NAME, ROOT_LIFE, None, now=now, usage=_CA_USAGE, constraints=x509.BasicConstraints(ca=True, path_length=None)
    )


class SigningChain:
    """The chain of one simulated enclave below a root, renewed as it ages."""

    def __init__(self, root: Authority, *, module_id: str, region: str = DEFAULT_REGION) -> None:
        self._root = root
        self._module_id = module_id
        self._region = region
        self._authorities: tuple[Authority, ...] = ()
        self._leaf: Authority | None = None

    def current(self, now: datetime) -> Credentials:
        """The credentials for a document made at `now`: the present leaf, or a new one when it has too little time left."""
        leaf = self._leaf
        if leaf is None or not _serves(leaf, now, LEAF_LEFT_LEAST):
            if not self._authorities or not _serves(self._authorities[-1], now, LEAF_LIFE):
                self._authorities = self._issue_authorities(now)
            leaf = self._leaf = _issue(
                f"{self._module_id}.{self._region}.aws",
                LEAF_LIFE,
                self._authorities[-1],
                now=now,
                usage=_LEAF_USAGE,
                constraints=x509.BasicConstraints(ca=False, path_length=None),
            )
        return Credentials(leaf=leaf, cabundle=(self._root.der, *(authority.der for authority in self._authorities)))

    def _issue_authorities(self, now: datetime) -> tuple[Authority, ...]:
        """Those of region, zone and instance, each by the one before it."""
        domain = f"{self._region}.{ROOT_NAME}"
        instance_id, _, _ = self._module_id.partition("-enc")
        plan = (
            (f"{secrets.token_hex(8)}.{domain}", REGION_LIFE, _CA_USAGE),
            (f"{secrets.token_hex(8)}.zonal.{domain}", ZONE_LIFE, _CA_USAGE),
            (f"{instance_id}.{domain}", INSTANCE_LIFE, _INSTANCE_USAGE),
        )
        issued = [self._root]
        for number, (name, life, usage) in enumerate(plan, 1):
            constraints = x509.BasicConstraints(ca=True, path_length=len(plan) - number)
            issued.append(_issue(name, life, issued[-1], now=now, usage=usage, constraints=constraints))
        return tuple(issued[1:])


def _serves(authority: Authority, now: datetime, least: timedelta) -> bool:
    """Whether the certificate is valid at `now` and for `least` after it."""
    certificate = authority.certificate
    return certificate.not_valid_before_utc <= now and certificate.not_valid_after_utc - now >= least


def _issue(
    common_name: str,
    life: timedelta,
    issuer: Authority | None,
    *,
    now: datetime,
    usage: x509.KeyUsage,
    constraints: x509.BasicConstraints,
) -> Authority:
    """A certificate with the extensions that a genuine one of its place has; without an issuer it signs itself."""
    key = generate_private_key(SECP384R1())
    start = now.replace(microsecond=0)
    subject = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=constraints.ca)
    )
    if constraints.ca:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        if issuer:
            issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
            builder = builder.add_extension(issuer_id, critical=False)
            if usage.crl_sign:
                builder = builder.add_extension(_crl_distribution_points(), critical=False)
    return Authority(certificate=builder.sign((issuer.key if issuer else key), SHA384()), key=key)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        (
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Enclave Runtime"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Simulated, for development only"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        )
    )


def _crl_distribution_points() -> x509.CRLDistributionPoints:
    """A list that nobody can fetch (RFC 2606), because nobody should: verifiers of attestation documents consult none."""
    place = x509.UniformResourceIdentifier(f"http://crl.{ROOT_NAME}.invalid/{uuid4()}.crl")
    return x509.CRLDistributionPoints([x509.DistributionPoint([place], None, None, None)])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Writes the whole file or nothing, and never with a wider mode."""
    fresh = path.with_suffix(f"{path.suffix}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.rename(path)
