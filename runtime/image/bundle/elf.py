"""As much of ELF as the bundle needs: which libraries a file names, and the file without what is only for debuggers.

Source: System V ABI, generic and AMD64 supplement. For 64-bit little-endian files.
"""

import struct
from collections.abc import Iterator

MAGIC = b"\x7fELF\x02\x01"
_HEAD = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRY = struct.Struct("<qQ")
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRING_TABLE = 1, 5
_SECTIONS_AT = 40
_SECTION_COUNTS_AT = 58


def needed(data: bytes) -> list[str]:
    """The libraries that the loader has to find for this file, by the names that it gives (DT_NEEDED)."""
    segments = list(_segments(data))
    dynamic = next(((offset, size) for kind, offset, _, size in segments if kind == _DYNAMIC), None)
    if dynamic is None:
        return []
    offset, size = dynamic
    entries = list(_DYNAMIC_ENTRY.iter_unpack(data[offset : offset + size - size % _DYNAMIC_ENTRY.size]))
    address = dict(entries)[_STRING_TABLE]
    strings = next(address - start + at for kind, at, start, long in segments if kind == _LOAD and start <= address < start + long)
    names = [strings + value for tag, value in entries if tag == _NEEDED]
    return [data[at : data.index(b"\0", at)].decode() for at in names]


def without_symbols(data: bytes) -> bytes:
    """The file up to the end of what is loaded, its section headers gone: they and what follows are read by linkers and debuggers only.

    Nothing that runs is touched, and no version of binutils decides about a byte of it.
    """
    end = max(offset + size for _, offset, _, size in _segments(data))
    kept = bytearray(data[:end])
    kept[_SECTIONS_AT : _SECTIONS_AT + 8] = bytes(8)
    kept[_SECTION_COUNTS_AT : _SECTION_COUNTS_AT + 6] = bytes(6)
    return bytes(kept)


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, offset in the file, address, size in the file)."""
    _, _, _, _, at, _, _, _, entry_size, count, *_ = _HEAD.unpack_from(data)
    for number in range(count):
        kind, _, offset, address, _, size, _, _ = _SEGMENT.unpack_from(data, at + number * entry_size)
        yield kind, offset, address, size
