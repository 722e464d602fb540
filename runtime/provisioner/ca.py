"""The issuing CA: signs the TLS key that an enclave made inside, for the names that its record allows and no other."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.protocol.errors import Refused

_BACKDATED = timedelta(minutes=5)
_UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""All that the library raises for a request that somebody else wrote; each of them is a plain `Exception` of its own."""
_KEY_USAGE = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"CertificateAuthority({self.certificate.subject.rfc4514_string()})"

    def issue(
        self, public_key: ec.EllipticCurvePublicKey, names: tuple[str, ...], *, now: datetime, lifetime: timedelta
    ) -> x509.Certificate:
        """A server certificate for DNS names. It never outlives the CA."""
        return (
            _builder(public_key, self.certificate.subject, now=now, until=min(now + lifetime, self.certificate.not_valid_after_utc))
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, SHA256())
        )

    def sign_request(
        self, request: bytes, allowed: tuple[str, ...], *, now: datetime, lifetime: timedelta
    ) -> tuple[tuple[str, ...], bytes]:
        """(names, leaf DER) for a PKCS#10 request in DER. Raises `Refused` with "csr_invalid"."""
        public_key, asked = read_request(request)
        foreign = [name for name in asked if name not in allowed]
        if foreign or not allowed:
            raise Refused("csr_invalid", f"the record does not allow {', '.join(foreign) or 'any name'}")
        names = asked or allowed
        return names, self.issue(public_key, names, now=now, lifetime=lifetime).public_bytes(Encoding.DER)


def create_authority(common_name: str, *, now: datetime, lifetime: timedelta = timedelta(days=3650)) -> CertificateAuthority:
    """A self-signed CA on P-256 that may issue leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        _builder(key.public_key(), subject, now=now, until=now + lifetime)
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return CertificateAuthority(certificate=certificate, key=key)


def read_request(request: bytes) -> tuple[ec.EllipticCurvePublicKey, tuple[str, ...]]:
    """(key, DNS names) of a PKCS#10 request that proves possession of an EC key. Raises `Refused` with "csr_invalid"."""
    try:
        parsed = x509.load_der_x509_csr(request)
        public_key = parsed.public_key()
        proven = parsed.is_signature_valid
        names = _names(parsed)
    except _UNREADABLE as error:
        raise Refused("csr_invalid", "not a certificate request") from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise Refused("csr_invalid", "the key is not on P-256 or P-384")
    if not proven:
        raise Refused("csr_invalid", "the request is not signed by its own key")
    return public_key, names


def _names(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        extension = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names = extension.value.get_values_for_type(x509.DNSName)
    if len(names) != len(list(extension.value)):
        raise Refused("csr_invalid", "the request names something other than DNS names")
    return tuple(names)


def _builder(
    public_key: ec.EllipticCurvePublicKey, issuer: x509.Name, *, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def key_usage(*allowed: str) -> x509.KeyUsage:
    """The extension with these bits, by the names that `x509.KeyUsage` gives them."""
    return x509.KeyUsage(**{usage: usage in allowed for usage in _KEY_USAGE})
