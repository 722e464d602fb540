"""Reads the integer-keyed maps of PROTOCOL (protocol/README.md): each field once, by key, with its exact type and size.

A reader checks while it reads, so that a message's dataclass is only ever built from fields that were all checked.
"""

from collections.abc import Callable
from typing import TypeVar

from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed

T = TypeVar("T")
UINT_MAX = 2**64 - 1


def uint(value: Value, what: str, *, most: int = UINT_MAX) -> int:
    """`value` as an unsigned integer (never a bool) of at most `most`."""
    if type(value) is not int or not 0 <= value <= most:
        raise Malformed(f"{what} must be an unsigned integer of at most {most}")
    return value


def octets(value: Value, what: str, *, size: int | None = None, least: int = 0, most: int = 1 << 20) -> bytes:
    """`value` as a byte string of exactly `size`, or of `least` to `most`, bytes."""
    if type(value) is not bytes or not least <= len(value) <= most or size not in (None, len(value)):
        raise Malformed(f"{what} must be a byte string of {size if size is not None else f'{least} to {most}'} bytes")
    return value


def text(value: Value, what: str, *, least: int = 0, most: int = 256) -> str:
    """`value` as text of `least` to `most` characters."""
    if type(value) is not str or not least <= len(value) <= most:
        raise Malformed(f"{what} must be text of {least} to {most} characters")
    return value


def array(value: Value, what: str, item: Callable[[Value, str], T], *, least: int = 0, most: int = 64) -> tuple[T, ...]:
    """`value` as an array of `least` to `most` items, each read by `item`."""
    if type(value) is not list or not least <= len(value) <= most:
        raise Malformed(f"{what} must be an array of {least} to {most} items")
    return tuple(item(entry, f"{what}[{index}]") for index, entry in enumerate(value))


class Fields:
    """One map. Take each field, then call `finish`, which refuses what was not taken."""

    def __init__(self, value: Value, what: str) -> None:
        if type(value) is not dict:
            raise Malformed(f"{what} must be a map")
        self._left = dict(value)
        self._what = what

    def __contains__(self, key: int) -> bool:
        return key in self._left

    def take(self, key: int) -> Value:
        """The raw value of a field that must be there."""
        if key not in self._left:
            raise Malformed(f"{self._what} lacks field {key}")
        return self._left.pop(key)

    def uint(self, key: int, *, most: int = UINT_MAX) -> int:
        """Field `key` as an unsigned integer."""
        return uint(self.take(key), f"{self._what}.{key}", most=most)

    def octets(self, key: int, *, size: int | None = None, least: int = 0, most: int = 1 << 20) -> bytes:
        """Field `key` as a byte string."""
        return octets(self.take(key), f"{self._what}.{key}", size=size, least=least, most=most)

    def text(self, key: int, *, least: int = 0, most: int = 256) -> str:
        """Field `key` as text."""
        return text(self.take(key), f"{self._what}.{key}", least=least, most=most)

    def array(self, key: int, item: Callable[[Value, str], T], *, least: int = 0, most: int = 64) -> tuple[T, ...]:
        """Field `key` as an array."""
        return array(self.take(key), f"{self._what}.{key}", item, least=least, most=most)

    def finish(self, *, ignore_from: int | None = None) -> None:
        """Refuses fields that nobody took; integers from `ignore_from` on are passed over (header maps only)."""
        for key in self._left:
            if not (ignore_from is not None and type(key) is int and key >= ignore_from):
                raise Malformed(f"{self._what} has an unknown field {key!r:.40}")
