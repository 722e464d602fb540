"""One X.509 v3 certificate (RFC 5280) read strictly from DER, as much of it as the rules of a Nitro chain look at.

`cryptography` reads certificates too, but lazily (errors come out of attributes, of half a dozen types), with warnings in place of some
refusals, and it writes names anew where the rules compare bytes. Here every rule of the encoding is kept once, at the door, and the only
error is `Malformed` with reason "certificate_syntax". `cryptography` keeps what is its own: keys, curves and signatures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey

from runtime.protocol.buffer import Cursor
from runtime.protocol.errors import Malformed
from runtime.verifier import der

ECDSA_WITH_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
"""AlgorithmIdentifier with absent parameters (RFC 5758 section 3.2)."""

DIGITAL_SIGNATURE, KEY_CERT_SIGN = 0, 5
"""Bits of keyUsage (RFC 5280 section 4.2.1.3)."""

_P384_SPKI = bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
"""SubjectPublicKeyInfo up to the point (RFC 5480), with the lengths that an uncompressed point of P-384 makes."""

_V3 = bytes.fromhex("020102")
_SERIAL_BITS = 160  # 20 bytes of magnitude: genuine ones use them all and take a 21st for the sign
_VERSION, _EXTENSIONS, _KEY_ID, _ISSUER, _SERIAL = 0xA0, 0xA3, 0x80, 0xA1, 0x82

_COMMON_NAME = "2.5.4.3"
_SUBJECT_KEY_ID, _KEY_USAGE, _BASIC_CONSTRAINTS, _AUTHORITY_KEY_ID = "2.5.29.14", "2.5.29.15", "2.5.29.19", "2.5.29.35"
_KNOWN = frozenset({_SUBJECT_KEY_ID, _KEY_USAGE, _BASIC_CONSTRAINTS, _AUTHORITY_KEY_ID})
_UTF8, _PRINTABLE, _IA5 = 0x0C, 0x13, 0x16
_CODECS = {_UTF8: "utf-8", _PRINTABLE: "ascii", _IA5: "ascii"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicConstraints:
    """The extension of RFC 5280 section 4.2.1.9."""

    critical: bool
    ca: bool
    path_length: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that is well formed; whether to believe it is for `runtime.verifier.chain` to say.

    `issuer`, `subject`, `spki` and the algorithms are the DER as received. An absent extension is None.
    """

    encoded: bytes
    signed: bytes
    signed_algorithm: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    subject: bytes
    common_name: str | None
    not_before: datetime
    not_after: datetime
    spki: bytes
    basic_constraints: BasicConstraints | None
    key_usage: frozenset[int] | None
    subject_key_id: bytes | None
    authority_key_id: bytes | None
    unknown_critical: tuple[str, ...]

    def p384_key(self) -> EllipticCurvePublicKey | None:
        """The key, if it is an uncompressed point of P-384."""
        if not self.spki.startswith(_P384_SPKI):
            return None
        try:
            return EllipticCurvePublicKey.from_encoded_point(SECP384R1(), self.spki[len(_P384_SPKI) :])
        except ValueError:
            return None


def parse_certificate(data: bytes) -> Certificate:
    """The certificate that is all of `data`. Raises `Malformed` with reason "certificate_syntax"."""
    try:
        return _certificate(data)
    except Malformed as error:
        raise Malformed(error.detail, "certificate_syntax") from None


def _certificate(data: bytes) -> Certificate:
    outer = der.only_element(data, der.SEQUENCE)
    signed = der.whole_element(outer, der.SEQUENCE)
    algorithm = der.whole_element(outer, der.SEQUENCE)
    signature = der.octet_bits(der.element(outer, der.BIT_STRING))
    outer.finish()

    body = der.only_element(signed, der.SEQUENCE)
    if der.element(body, _VERSION) != _V3:
        raise Malformed("a certificate that is not of version 3")
    serial = der.integer(der.element(body, der.INTEGER))
    if serial <= 0 or serial.bit_length() > _SERIAL_BITS:
        raise Malformed("a serial number that is not positive or has more than 20 bytes")
    signed_algorithm = der.whole_element(body, der.SEQUENCE)
    issuer = der.whole_element(body, der.SEQUENCE)
    _common_name(issuer)
    validity = Cursor(der.element(body, der.SEQUENCE))
    not_before, not_after = der.time(validity), der.time(validity)
    validity.finish()
    subject = der.whole_element(body, der.SEQUENCE)
    spki = der.whole_element(body, der.SEQUENCE)
    extensions = _extensions(der.only_element(der.element(body, _EXTENSIONS), der.SEQUENCE))
    body.finish()

    return Certificate(
        encoded=data,
        signed=signed,
        signed_algorithm=signed_algorithm,
        algorithm=algorithm,
        signature=signature,
        issuer=issuer,
        subject=subject,
        common_name=_common_name(subject),
        not_before=not_before,
        not_after=not_after,
        spki=spki,
        basic_constraints=_basic_constraints(extensions),
        key_usage=_key_usage(extensions),
        subject_key_id=_subject_key_id(extensions),
        authority_key_id=_authority_key_id(extensions),
        unknown_critical=tuple(oid for oid, (critical, _) in extensions.items() if critical and oid not in _KNOWN),
    )


def _common_name(name: bytes) -> str | None:
    """The only common name in a Name, None when there is none or more than one."""
    found: list[str] = []
    names = der.only_element(name, der.SEQUENCE)
    while names.remaining:
        relative = Cursor(der.element(names, der.SET))
        attributes: list[bytes] = []
        while relative.remaining or not attributes:
            attributes.append(der.whole_element(relative, der.SEQUENCE))
            attribute = der.only_element(attributes[-1], der.SEQUENCE)
            kind = der.oid(der.element(attribute, der.OID))
            tag = attribute.peek()
            value = der.element(attribute, tag)
            attribute.finish()
            if kind == _COMMON_NAME:
                found.append(_text(tag, value))
        if attributes != sorted(attributes):
            raise Malformed("a set that is not in order")
    return found[0] if len(found) == 1 else None


def _text(tag: int, value: bytes) -> str:
    if tag not in _CODECS:
        raise Malformed("a common name in an unusual kind of string")
    try:
        return value.decode(_CODECS[tag])
    except UnicodeDecodeError:
        raise Malformed("a common name that is not text") from None


_Extensions = Mapping[str, tuple[bool, bytes]]


def _extensions(cursor: Cursor) -> _Extensions:
    """(critical, value) by object identifier; there is at least one, and none twice."""
    extensions: dict[str, tuple[bool, bytes]] = {}
    while cursor.remaining or not extensions:
        extension = Cursor(der.element(cursor, der.SEQUENCE))
        oid = der.oid(der.element(extension, der.OID))
        flag = der.optional_element(extension, der.BOOLEAN)
        critical = flag is not None and _true(flag)
        value = der.element(extension, der.OCTET_STRING)
        extension.finish()
        if oid in extensions:
            raise Malformed(f"the extension {oid:.60} twice")
        extensions[oid] = critical, value
    return extensions


def _basic_constraints(extensions: _Extensions) -> BasicConstraints | None:
    if _BASIC_CONSTRAINTS not in extensions:
        return None
    critical, value = extensions[_BASIC_CONSTRAINTS]
    cursor = der.only_element(value, der.SEQUENCE)
    flag = der.optional_element(cursor, der.BOOLEAN)
    ca = flag is not None and _true(flag)
    length = der.optional_element(cursor, der.INTEGER)
    cursor.finish()
    path_length = None if length is None else der.integer(length)
    if path_length is not None and path_length < 0:
        raise Malformed("a negative path length")
    return BasicConstraints(critical=critical, ca=ca, path_length=path_length)


def _key_usage(extensions: _Extensions) -> frozenset[int] | None:
    if _KEY_USAGE not in extensions:
        return None
    cursor = Cursor(extensions[_KEY_USAGE][1])
    bits = der.named_bits(der.element(cursor, der.BIT_STRING))
    cursor.finish()
    return bits


def _subject_key_id(extensions: _Extensions) -> bytes | None:
    if _SUBJECT_KEY_ID not in extensions:
        return None
    cursor = Cursor(extensions[_SUBJECT_KEY_ID][1])
    identifier = der.element(cursor, der.OCTET_STRING)
    cursor.finish()
    return identifier


def _authority_key_id(extensions: _Extensions) -> bytes | None:
    """The keyIdentifier; issuer and serial number are read over, for they name what the chain's order already says."""
    if _AUTHORITY_KEY_ID not in extensions:
        return None
    cursor = der.only_element(extensions[_AUTHORITY_KEY_ID][1], der.SEQUENCE)
    identifier = der.optional_element(cursor, _KEY_ID)
    der.optional_element(cursor, _ISSUER)
    der.optional_element(cursor, _SERIAL)
    cursor.finish()
    return identifier


def _true(contents: bytes) -> bool:
    """A BOOLEAN that DEFAULTs to FALSE, and so is written only when it is TRUE (X.690 section 11.5)."""
    if not der.boolean(contents):
        raise Malformed("a default value that is written out")
    return True
