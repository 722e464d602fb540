"""DER (X.690 section 10) read strictly: one way to write each value, and every other way is `Malformed`.

Only what certificates need: tags of one byte, no recursion, each element read because the format says that it comes next.
"""

import re
from datetime import UTC, datetime

from runtime.protocol.buffer import Cursor
from runtime.protocol.errors import Malformed

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31

_UTC_TIME = re.compile(rb"[0-9]{12}Z")
_GENERALIZED_TIME = re.compile(rb"[0-9]{14}Z")


def element(cursor: Cursor, tag: int) -> bytes:
    """The contents of the next element, whose identifier must be `tag`."""
    found = cursor.uint(1)
    if found != tag:
        raise Malformed(f"tag {tag:#04x} expected, {found:#04x} found")
    return cursor.take(_length(cursor))


def whole_element(cursor: Cursor, tag: int) -> bytes:
    """The next element with its identifier and length."""
    start = cursor.position
    element(cursor, tag)
    return cursor.since(start)


def optional_element(cursor: Cursor, tag: int) -> bytes | None:
    """The contents of the next element if its identifier is `tag`, else None and nothing is read."""
    return element(cursor, tag) if cursor.remaining and cursor.peek() == tag else None


def only_element(data: bytes, tag: int) -> Cursor:
    """A cursor over the contents of the one element that `data` must be."""
    cursor = Cursor(data)
    contents = element(cursor, tag)
    cursor.finish()
    return Cursor(contents)


def integer(contents: bytes) -> int:
    """The value of an INTEGER's contents."""
    if not contents or (len(contents) > 1 and (contents[0], contents[1] >> 7) in {(0x00, 0), (0xFF, 1)}):
        raise Malformed("an integer that is empty or not in its shortest form")
    return int.from_bytes(contents, "big", signed=True)


def boolean(contents: bytes) -> bool:
    """The value of a BOOLEAN's contents."""
    if contents not in {b"\x00", b"\xff"}:
        raise Malformed("a boolean that is neither 00 nor ff")
    return contents == b"\xff"


def octet_bits(contents: bytes) -> bytes:
    """A BIT STRING's contents that hold whole bytes."""
    if contents[:1] != b"\x00":
        raise Malformed("a bit string that is not of whole bytes")
    return contents[1:]


def named_bits(contents: bytes) -> frozenset[int]:
    """The numbers of the bits set in a BIT STRING of named bits, which must not end in a zero bit (X.690 section 11.2.2)."""
    if not contents or contents[0] > 7:
        raise Malformed("a bit string without a count of unused bits")
    unused, octets = contents[0], contents[1:]
    last = octets[-1] if octets else 1 << unused
    if last & (2 << unused) - 1 != 1 << unused or (not octets and unused):
        raise Malformed("a bit string of named bits that ends in zero or unused bits")
    return frozenset(8 * place + bit for place, octet in enumerate(octets) for bit in range(8) if octet & 0x80 >> bit)


def oid(contents: bytes) -> str:
    """An OBJECT IDENTIFIER's contents in dotted form."""
    if not contents or contents[-1] & 0x80:
        raise Malformed("an object identifier that ends early")
    arcs: list[int] = []
    value, starts = 0, True
    for octet in contents:
        if starts and octet == 0x80:
            raise Malformed("an object identifier not in its shortest form")
        value, starts = value << 7 | octet & 0x7F, octet < 0x80
        if starts:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def time(cursor: Cursor) -> datetime:
    """The next element as a Time (RFC 5280 section 4.1.2.5): UTCTime before 2050, GeneralizedTime from then on, seconds, "Z"."""
    short = optional_element(cursor, UTC_TIME)
    contents = element(cursor, GENERALIZED_TIME) if short is None else short
    if not (_GENERALIZED_TIME if short is None else _UTC_TIME).fullmatch(contents):
        raise Malformed("a time that is not written in whole seconds of UTC")
    digits = contents[:-1].decode()
    if short is not None:
        digits = ("20" if digits < "50" else "19") + digits
    elif digits < "2050":
        raise Malformed("a year before 2050 as GeneralizedTime")
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise Malformed("a time that no calendar has") from None


def _length(cursor: Cursor) -> int:
    first = cursor.uint(1)
    if first < 0x80:
        return first
    size = first & 0x7F
    if not 1 <= size <= 4:
        raise Malformed("an indefinite, reserved or immense length")
    length = cursor.uint(size)
    if length < 0x80 or length < 1 << 8 * (size - 1):
        raise Malformed("a length not in its shortest form")
    return length
