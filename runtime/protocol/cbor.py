"""CBOR (RFC 8949) in the two forms that this system meets.

`encode` and `decode` are *core deterministic encoding* (section 4.2.1) and nothing else: definite lengths, shortest integers, map keys
sorted bytewise. `decode_wellformed` is for what the NSM makes: any key order, longer integers, maps and arrays of indefinite length.
Both refuse tags, floats, `undefined`, chunked strings, duplicate keys, invalid UTF-8, trailing bytes and deep nesting, and both
refuse a length before anything is allocated for it. Values are `int`, `bytes`, `str`, `bool`, `None`, `list` and `dict`.

Note for callers: `True` is an `int` in Python; test with `type(x) is int` (runtime/protocol/fields.py does).
"""

from typing import TypeAlias

from runtime.protocol.buffer import Cursor
from runtime.protocol.errors import LocalProtocolError, Malformed

Key: TypeAlias = int | str | bytes
Value: TypeAlias = "int | bytes | str | bool | list[Value] | dict[Key, Value] | None"

MESSAGE_MAX = 16 * 1024
"""Bytes of a PROV/1 message."""

MAX_DEPTH = 8
MAX_ITEMS = 100_000

_UINT, _NEGINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_BREAK = 0xFF


def encode(value: object) -> bytes:
    """`dCBOR(value)`. Tuples are arrays. A value of any other kind is our bug: `LocalProtocolError`."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def decode(data: bytes, *, max_size: int = MESSAGE_MAX) -> Value:
    """The value of one deterministic item, which must be all of `data`. Raises `Malformed`."""
    return _decode_all(data, max_size=max_size, deterministic=True)


def decode_wellformed(data: bytes, *, max_size: int) -> Value:
    """The value of one item in any well-formed encoding within the module's limits. Raises `Malformed`."""
    return _decode_all(data, max_size=max_size, deterministic=False)


def head(major: int, argument: int) -> bytes:
    """The initial bytes of an item: major type 0 to 7 and its argument, in shortest form."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes((major << 5 | info,)) + argument.to_bytes(size, "big")
    raise LocalProtocolError(f"{argument} does not fit in 64 bits")


def _encode(value: object, out: bytearray) -> None:
    match value:
        case bool():
            out.append(0xF5 if value else 0xF4)
        case None:
            out.append(0xF6)
        case int():
            out += head(_UINT, value) if value >= 0 else head(_NEGINT, -1 - value)
        case bytes():
            out += head(_BYTES, len(value)) + value
        case str():
            try:
                text = value.encode()
            except UnicodeEncodeError:
                raise LocalProtocolError("text that has no UTF-8 form") from None
            out += head(_TEXT, len(text)) + text
        case list() | tuple():
            out += head(_ARRAY, len(value))
            for item in value:
                _encode(item, out)
        case dict():
            out += head(_MAP, len(value))
            for key, item in sorted((encode(key), item) for key, item in value.items()):
                out += key
                _encode(item, out)
        case _:
            raise LocalProtocolError(f"{type(value).__name__} has no CBOR form here")


def _decode_all(data: bytes, *, max_size: int, deterministic: bool) -> Value:
    if len(data) > max_size:
        raise Malformed(f"{len(data)} bytes, {max_size} allowed", "too_large")
    decoder = _Decoder(data, deterministic=deterministic)
    value = decoder.item(depth=1)
    decoder.cursor.finish()
    return value


class _Decoder:
    def __init__(self, data: bytes, *, deterministic: bool) -> None:
        self.cursor = Cursor(data)
        self._deterministic = deterministic
        self._items = 0

    def item(self, depth: int) -> Value:
        self._items += 1
        if depth > MAX_DEPTH:
            raise Malformed(f"nested deeper than {MAX_DEPTH}", "too_deep")
        if self._items > MAX_ITEMS:
            raise Malformed(f"more than {MAX_ITEMS} items", "too_large")
        initial = self.cursor.uint(1)
        major, info = initial >> 5, initial & 31
        if major == _SIMPLE:
            return _simple(info)
        if major == _TAG:
            raise Malformed("a tag", "cbor_tag")
        count = self._argument(info)
        if major == _UINT:
            return self._definite(count)
        if major == _NEGINT:
            return -1 - self._definite(count)
        if major == _BYTES:
            return self.cursor.take(self._definite(count))
        if major == _TEXT:
            return self._text(self._definite(count))
        return self._array(count, depth) if major == _ARRAY else self._map(count, depth)

    def _argument(self, info: int) -> int | None:
        """The argument of an item's head, None for an indefinite length."""
        if info < 24:
            return info
        if info < 28:
            size = 1 << info - 24
            argument = self.cursor.uint(size)
            least = 24 if size == 1 else 1 << 4 * size
            if self._deterministic and argument < least:
                raise Malformed("an integer not in its shortest form", "cbor_not_deterministic")
            return argument
        if info == 31:
            if self._deterministic:
                raise Malformed("an indefinite length", "cbor_indefinite")
            return None
        raise Malformed(f"reserved additional information {info}", "cbor_reserved")

    @staticmethod
    def _definite(count: int | None) -> int:
        if count is None:
            raise Malformed("a chunked string or an integer without a value", "cbor_indefinite")
        return count

    def _text(self, count: int) -> str:
        try:
            return self.cursor.take(count).decode()
        except UnicodeDecodeError:
            raise Malformed("text that is not UTF-8", "cbor_utf8") from None

    def _more(self, count: int | None, done: int) -> bool:
        """Whether an array or map has another entry. A claimed count never allocates: every entry takes at least one byte."""
        if count is not None:
            if count - done > self.cursor.remaining:
                raise Malformed("more entries claimed than bytes left", "truncated")
            return done < count
        if self.cursor.peek() != _BREAK:
            return True
        self.cursor.take(1)
        return False

    def _array(self, count: int | None, depth: int) -> Value:
        items: list[Value] = []
        while self._more(count, len(items)):
            items.append(self.item(depth + 1))
        return items

    def _map(self, count: int | None, depth: int) -> Value:
        entries: dict[Key, Value] = {}
        previous = b""
        while self._more(count, len(entries)):
            start = self.cursor.position
            key = self.item(depth + 1)
            if isinstance(key, bool) or not isinstance(key, int | str | bytes):
                raise Malformed("a map key that is not an integer or a string", "cbor_key")
            if key in entries:
                raise Malformed(f"the key {key!r:.40} twice", "cbor_duplicate_key")
            if self._deterministic:
                encoded = self.cursor.since(start)
                if encoded < previous:
                    raise Malformed("map keys out of order", "cbor_not_deterministic")
                previous = encoded
            entries[key] = self.item(depth + 1)
        return entries


def _simple(info: int) -> bool | None:
    match info:
        case 20:
            return False
        case 21:
            return True
        case 22:
            return None
        case 31:
            raise Malformed("a break outside an item of indefinite length", "cbor_reserved")
        case 25 | 26 | 27:
            raise Malformed("a floating-point number", "cbor_float")
        case _:
            raise Malformed("undefined or an unassigned simple value", "cbor_reserved")
