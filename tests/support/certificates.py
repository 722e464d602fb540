"""A small certificate authority for tests: P-256, X.509 v3 as RFC 5280 wants it, so that OpenSSL's strict mode takes it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.net.tls import TlsIdentity

_SIGNING = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CA:
    """An authority and what leads from it to its root: `issuers` has its own certificate first and never the root's."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuers: tuple[x509.Certificate, ...] = ()
    now: datetime

    def issue(
        self,
        names: tuple[str, ...],
        *,
        client: bool = False,
        common_name: str | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> TlsIdentity:
        """An identity for DNS names and IP addresses: for a TLS server, or with `client` for a TLS client.

        The common name is the first name, and it is valid from an hour ago for 90 days, unless told otherwise.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = _builder(
            self._name(common_name or names[0]),
            issuer=self.certificate.subject,
            key=key.public_key(),
            not_before=not_before or self.now - timedelta(hours=1),
            not_after=not_after or self.now + timedelta(days=90),
        )
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**_SIGNING | {"digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return TlsIdentity(names=names, chain=(builder.sign(self.key, hashes.SHA256()), *self.issuers), key=key)

    def intermediate(self, name: str) -> "CA":
        """An authority below this one."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _authority(
            _builder(self._name(name), issuer=self.certificate.subject, key=key.public_key(), **self._validity()), key
        )
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = builder.add_extension(identifier, critical=False).sign(self.key, hashes.SHA256())
        return CA(certificate=certificate, key=key, issuers=(certificate, *self.issuers), now=self.now)

    def _validity(self) -> dict[str, datetime]:
        return {"not_before": self.now - timedelta(days=1), "not_after": self.now + timedelta(days=3650)}

    @staticmethod
    def _name(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def make_ca(name: str, now: datetime) -> CA:
    """A self-signed root that is valid for ten years around `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = CA._name(name)
    builder = _builder(
        subject, issuer=subject, key=key.public_key(), not_before=now - timedelta(days=1), not_after=now + timedelta(days=3650)
    )
    return CA(certificate=_authority(builder, key).sign(key, hashes.SHA256()), key=key, now=now)


def _builder(
    subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePublicKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(
        x509.KeyUsage(**_SIGNING | {"key_cert_sign": True, "crl_sign": True}), critical=True
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
