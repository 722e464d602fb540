"""Finds one file in an image's ramdisks, as the kernel would unpack them. The image is whoever's; what is no archive is `Malformed`."""

import stat
from collections.abc import Sequence

from runtime.image.difference import plain, read_cpio


def find_file(ramdisks: Sequence[bytes | memoryview], path: bytes) -> bytes | None:
    """The content of the regular file at `path`, without a leading slash; that of the last one that was put there. Raises `Malformed`."""
    found = None
    for ramdisk in ramdisks:
        for entry in read_cpio(plain(ramdisk)):
            _, mode, *_ = entry.numbers
            if entry.name == path and stat.S_ISREG(mode):
                found = bytes(entry.data)
    return found
