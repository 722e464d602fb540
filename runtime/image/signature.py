"""The signature section of an enclave image: who vouches for PCR 0, and what PCR 8 will be. Runs on the build machine.

Source: AWS, *Enclave image file specification*. The section is CBOR, `[{"signing_certificate": C, "signature": S}]`, in which C (the
certificate's PEM file as it was given), S (an untagged COSE_Sign1) and the measured register inside S are arrays of small integers
where byte strings would be expected: that is how AWS's tools write byte vectors. The hypervisor measures the certificate's DER.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.image.eif import SIGNATURE_MAX
from runtime.protocol import cbor
from runtime.protocol.cose import sig_structure
from runtime.protocol.errors import Malformed
from runtime.protocol.measurements import PCR_SIZE, extended_once

SIGNER_PCR = 8
_REGISTER = 0  # the only one that AWS's tools sign
_ALGORITHMS: dict[str, tuple[int, hashes.HashAlgorithm]] = {
    "secp256r1": (-7, hashes.SHA256()),
    "secp384r1": (-35, hashes.SHA384()),
    "secp521r1": (-36, hashes.SHA512()),
}

Sign = Callable[[bytes], bytes]
"""Gives an ECDSA signature (DER) over a message, with the certificate's key and the hash that goes with its curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSignature:
    """What the section says, nothing of it verified: who signed which value of PCR 0."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePublicKey
    register_value: bytes
    algorithm: int
    signed: bytes
    signature: bytes  # r and s, each of the curve's size

    def signer_register(self) -> bytes:
        """PCR 8 of this image: the certificate's DER is hashed and that is extended, as for the image's own registers."""
        return signer_register(self.certificate)

    def is_of(self, image_register: bytes) -> bool:
        """Whether the certificate's key signed exactly this PCR 0."""
        algorithm, hashed = _ALGORITHMS[self.key.curve.name]
        half = _half(self.key)
        if self.register_value != image_register or self.algorithm != algorithm or len(self.signature) != 2 * half:
            return False
        r, s = int.from_bytes(self.signature[:half], "big"), int.from_bytes(self.signature[half:], "big")
        try:
            self.key.verify(encode_dss_signature(r, s), self.signed, ec.ECDSA(hashed))
        except InvalidSignature:
            return False
        return True


def signer_register(certificate: x509.Certificate) -> bytes:
    """PCR 8 of images signed with this certificate. A renewed certificate of the same key gives another."""
    digest = hashes.Hash(hashes.SHA384())
    digest.update(certificate.public_bytes(Encoding.DER))
    return extended_once(digest.finalize())


def read_signature(data: bytes) -> ImageSignature:
    """The first entry of the section, which is the only one that counts. Raises `Malformed`."""
    entries = cbor.decode_wellformed(data, max_size=SIGNATURE_MAX)
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise Malformed("a signature section is a list of entries")
    entry = entries[0]
    if set(entry) != {"signing_certificate", "signature"}:
        raise Malformed("an entry has signing_certificate and signature")
    pem, envelope = _octets(entry["signing_certificate"]), _octets(entry["signature"])
    certificate, key = read_signer(pem)
    match cbor.decode_wellformed(envelope, max_size=SIGNATURE_MAX):
        case [bytes() as protected, {}, bytes() as payload, bytes() as signature]:
            pass
        case _:
            raise Malformed("the signature is no COSE_Sign1")
    headers = cbor.decode_wellformed(protected, max_size=SIGNATURE_MAX)
    if not isinstance(headers, dict) or type(algorithm := headers.get(1)) is not int or len(headers) != 1:
        raise Malformed("the signature names no algorithm")
    match cbor.decode_wellformed(payload, max_size=SIGNATURE_MAX):
        case {"register_index": 0, "register_value": value, **others} if not others:
            register = _octets(value)
        case _:
            raise Malformed("the signature is not of PCR 0")
    if len(register) != PCR_SIZE:
        raise Malformed(f"PCR 0 has {PCR_SIZE} bytes")
    return ImageSignature(
        certificate=certificate,
        key=key,
        register_value=register,
        algorithm=algorithm,
        signed=sig_structure(protected, b"", payload),
        signature=signature,
    )


def write_signature(pem: bytes, image_register: bytes, sign: Sign) -> bytes:
    """The section's data. `pem` is the certificate's file; raises `Malformed` when it cannot be used or `sign` used another key."""
    _, key = read_signer(pem)
    protected = cbor.encode({1: _ALGORITHMS[key.curve.name][0]})
    payload = cbor.encode({"register_index": _REGISTER, "register_value": list(image_register)})
    r, s = decode_dss_signature(sign(sig_structure(protected, b"", payload)))
    half = _half(key)
    envelope = cbor.encode([protected, {}, payload, r.to_bytes(half, "big") + s.to_bytes(half, "big")])
    section = b"\x81\xa2" + b"".join(
        cbor.encode(name) + cbor.encode(list(value)) for name, value in (("signing_certificate", pem), ("signature", envelope))
    )
    if len(section) > SIGNATURE_MAX:
        raise Malformed(f"the signature section would have {len(section)} bytes; {SIGNATURE_MAX} are allowed")
    if not read_signature(section).is_of(image_register):
        raise Malformed("the signature is not by the certificate's key")
    return section


def read_signer(pem: bytes) -> tuple[x509.Certificate, ec.EllipticCurvePublicKey]:
    """The first certificate of a PEM file, all of which can be read, and its key. Raises `Malformed`."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
        _ = (certificate.issuer, certificate.not_valid_before_utc, certificate.not_valid_after_utc)  # which are read only here
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise Malformed("the signing certificate cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _ALGORITHMS:
        raise Malformed("an image is signed with an ECDSA key on P-256, P-384 or P-521")
    return certificate, key


def hash_of(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """The hash that goes with the key's curve."""
    return _ALGORITHMS[key.curve.name][1]


def _half(key: ec.EllipticCurvePublicKey) -> int:
    """Bytes of r, and of s."""
    return (key.curve.key_size + 7) // 8


def _octets(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, list) and all(type(item) is int and 0 <= item <= 255 for item in value):
        return bytes(value)
    raise Malformed("bytes, or a list of numbers that are bytes, are expected")
