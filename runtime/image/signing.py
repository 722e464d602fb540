"""Who signs an image: a certificate that is valid now, and its key, on disk or behind a command. Runs on the build machine."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from runtime.image.signature import Sign, hash_of, read_signer, signer_register, write_signature
from runtime.protocol.errors import Malformed

WARN_BEFORE = timedelta(days=30)
DAYS_MAX = 3650


class CannotSign(Exception):
    """The certificate or the key cannot be used; the message is for the person who gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A certificate that is valid, its PEM file as it was given, and what signs with its key."""

    pem: bytes
    sign: Sign
    ends: datetime
    register: bytes

    def section(self, image_register: bytes) -> bytes:
        """The signature section over this PCR 0. Raises `CannotSign`."""
        try:
            return write_signature(self.pem, image_register, self.sign)
        except (Malformed, ValueError) as error:
            raise CannotSign(error.detail if isinstance(error, Malformed) else str(error)) from None

    def warning(self, now: datetime) -> str | None:
        """What to say of a certificate that ends soon: an image is refused when it is *started* after that."""
        left = self.ends - now
        if left > WARN_BEFORE:
            return None
        return f"the signing certificate ends in {left.days} days, on {self.ends:%Y-%m-%d}: the image cannot be started after that"


def signer(pem: bytes, sign: Sign, now: datetime) -> Signer:
    """Raises `CannotSign` for a certificate that cannot be read, is of another kind of key, or is not valid now."""
    try:
        certificate, _ = read_signer(pem)
    except Malformed as error:
        raise CannotSign(error.detail) from None
    if now < certificate.not_valid_before_utc:
        raise CannotSign(f"the signing certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if now >= certificate.not_valid_after_utc:
        raise CannotSign(f"the signing certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return Signer(pem=pem, sign=sign, ends=certificate.not_valid_after_utc, register=signer_register(certificate))


def sign_with_key(pem: bytes, certificate: bytes) -> Sign:
    """Signs with an unencrypted PEM key, which must be the certificate's. Raises `CannotSign`."""
    try:
        key = load_pem_private_key(pem, None)
        _, public = read_signer(certificate)
    except Malformed as error:
        raise CannotSign(error.detail) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CannotSign("the key is no private key in PEM form without a password; use a command for any other") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != public:
        raise CannotSign("the key is not that of the certificate")
    return lambda message: key.sign(message, ec.ECDSA(hash_of(public)))


def sign_with(run: Callable[[bytes], bytes]) -> Sign:
    """Signs with what `run` gives for a message: an ECDSA signature in DER, or that in base64. It may raise `CannotSign` itself."""

    def sign(message: bytes) -> bytes:
        answer = run(message)
        if answer.startswith(b"\x30"):
            return answer
        try:
            return base64.b64decode(b"".join(answer.split()), validate=True)
        except binascii.Error:
            raise CannotSign("the command's answer is neither a DER signature nor base64") from None

    return sign


def new_certificate(name: str, days: int, now: datetime) -> tuple[bytes, bytes, bytes]:
    """A self-signed P-384 certificate and its key, both in PEM, and PCR 8 of what it signs."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # for the clock of the machine that starts it
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA384())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private, signer_register(certificate)
