"""Finds one file in an image's ramdisks, as the kernel would unpack them: cpio archives in the "newc" form, plain or gzip.

The image is whoever's; what is no archive is `Malformed`.
"""

import stat
import zlib
from collections.abc import Iterator, Sequence

from runtime.protocol.errors import Malformed

UNPACKED_MAX = 1 << 32
"""Bytes of one ramdisk when it is unpacked."""

_MAGIC = b"070701"
_HEAD = 110
_TRAILER = b"TRAILER!!!"
_GZIP = b"\x1f\x8b"


def find_file(ramdisks: Sequence[bytes | memoryview], path: bytes) -> bytes | None:
    """The content of the regular file at `path`, without a leading slash; that of the last one that was put there. Raises `Malformed`."""
    for ramdisk in reversed(ramdisks):
        found = None
        for name, mode, data in _entries(_unpacked(ramdisk)):
            if name == path and stat.S_ISREG(mode):
                found = bytes(data)
        if found is not None:
            return found
    return None


def _unpacked(ramdisk: bytes | memoryview) -> memoryview:
    if bytes(ramdisk[:2]) != _GZIP:
        return memoryview(ramdisk)
    inflate = zlib.decompressobj(wbits=31)
    try:
        data = inflate.decompress(ramdisk, UNPACKED_MAX)
    except zlib.error as error:
        raise Malformed(f"a ramdisk cannot be unpacked: {error}") from None
    if inflate.unconsumed_tail:
        raise Malformed(f"a ramdisk has more than {UNPACKED_MAX} bytes when it is unpacked")
    return memoryview(data)


def _entries(archive: memoryview) -> Iterator[tuple[bytes, int, memoryview]]:
    """Name, mode and content of each entry, of archives one behind the other."""
    at = 0
    while at < len(archive):
        if not archive[at]:  # the padding between two archives
            at += 1
            continue
        if bytes(archive[at : at + len(_MAGIC)]) != _MAGIC or at + _HEAD > len(archive):
            raise Malformed(f"no entry of an archive at byte {at} of a ramdisk")
        try:
            fields = [int(bytes(archive[at + 6 + 8 * number : at + 14 + 8 * number]), 16) for number in range(13)]
        except ValueError:
            raise Malformed(f"an entry with a bad number at byte {at} of a ramdisk") from None
        mode, size, name_size = fields[1], fields[6], fields[11]
        begin = _aligned(at + _HEAD + name_size)
        end = begin + size
        if not name_size or end > len(archive):
            raise Malformed(f"an entry that goes beyond the end at byte {at} of a ramdisk")
        name = bytes(archive[at + _HEAD : at + _HEAD + name_size - 1])
        if name != _TRAILER:
            yield name, mode, archive[begin:end]
        at = _aligned(end)


def _aligned(place: int) -> int:
    return -(-place // 4) * 4
