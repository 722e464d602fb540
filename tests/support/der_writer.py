"""Writes DER from the standard's tables, independent of the reader under test, and able to write what no library would."""

from datetime import datetime

ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 128:
        return bytes((tag, len(body))) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + len(body).to_bytes(size, "big") + body


def sequence(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(value: bytes) -> bytes:
    return tlv(0x04, value)


def bits(value: bytes, unused: int = 0) -> bytes:
    return tlv(0x03, bytes((unused,)), value)


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.insert(0, 0x80 | arc & 0x7F)
        out += bytes(groups)
    return tlv(0x06, out)


def utc_time(moment: datetime) -> bytes:
    if moment.year >= 2050:
        return tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())
    return tlv(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())


def attribute(kind: str, value: str, tag: int = 0x0C) -> bytes:
    return sequence(oid(kind), tlv(tag, value.encode()))


def name(common_name: str) -> bytes:
    country, unit, own = (
        tlv(0x31, attribute(*pair)) for pair in (("2.5.4.6", "US"), ("2.5.4.11", "AWS"), ("2.5.4.3", common_name))
    )
    return sequence(country, unit, own)


def extension(kind: str, value: bytes, *, critical: bool = False) -> bytes:
    return sequence(oid(kind), tlv(0x01, b"\xff") if critical else b"", octets(value))


def basic_constraints(*, ca: bool = True, path_length: int | None = None, critical: bool = True) -> bytes:
    value = sequence(tlv(0x01, b"\xff") if ca else b"", b"" if path_length is None else integer(path_length))
    return extension("2.5.29.19", value, critical=critical)


DIGITAL_SIGNATURE, NON_REPUDIATION, KEY_CERT_SIGN, CRL_SIGN = 0, 1, 5, 6


def key_usage(*numbers: int, critical: bool = True) -> bytes:
    octet = sum(0x80 >> number for number in numbers)
    return extension("2.5.29.15", bits(bytes((octet,)), 7 - max(numbers)), critical=critical)


def subject_key_id(identifier: bytes) -> bytes:
    return extension("2.5.29.14", octets(identifier))


def authority_key_id(identifier: bytes) -> bytes:
    return extension("2.5.29.35", sequence(tlv(0x80, identifier)))
