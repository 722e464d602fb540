"""Where two images differ, down to the first file: what to look at when a build did not give what somebody else's gave.

Either file may come from anybody: both are read strictly.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.image.compressed import unpack
from runtime.image.contents import BadImage, shown
from runtime.image.eif import Eif, SectionKind
from runtime.image.ramdisks import SENTINEL
from runtime.image.spool import Spool
from runtime.protocol.errors import Malformed

_HEAD = 110
_MAGIC = b"070701"
_TRAILER = b"TRAILER!!!"
_NAME_MAX = 4096
_WORDS = ("number", "mode", "owner", "group", "links", "time", "size", "device", "device", "device", "device", "name", "checksum")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpioEntry:
    """One entry of a newc archive: its name, the thirteen numbers of its head, its content."""

    name: bytes
    numbers: tuple[int, ...]
    data: bytes | memoryview


def difference(first: Eif, second: Eif) -> str | None:
    """A sentence on the first thing in which they differ; None for equal ones. Signatures are left aside. Raises `Malformed`."""
    for kind, words in ((SectionKind.KERNEL, "the kernel"), (SectionKind.COMMAND_LINE, "the command line")):
        if first.one_of(kind) != second.one_of(kind):
            return f"{words} differs"
    disks = (first.all_of(SectionKind.RAMDISK), second.all_of(SectionKind.RAMDISK))
    if len(disks[0]) != len(disks[1]):
        return f"one has {len(disks[0])} ramdisks and the other {len(disks[1])}"
    for number, (one, other) in enumerate(zip(*disks, strict=True)):
        if one != other:
            return f"ramdisk {number}: {_first_entry(plain(one), plain(other))}"
    if first.one_of(SectionKind.METADATA) != second.one_of(SectionKind.METADATA):
        return "the metadata differs, which no register covers"
    if (first.version, first.is_aarch64) != (second.version, second.is_aarch64):
        return "the version of the format or the processor differs"
    return None


def read_cpio(data: bytes | memoryview) -> Iterator[CpioEntry]:
    """The entries of a newc archive up to its trailer, behind which only zeros may be. Raises `Malformed`."""
    view = memoryview(data)
    at = 0
    while True:
        head = bytes(view[at : at + _HEAD])
        digits = head[6:]
        if len(head) != _HEAD or head[:6] != _MAGIC or not all(byte in b"0123456789abcdefABCDEF" for byte in digits):
            raise Malformed(f"no newc entry at {at}")
        numbers = tuple(int(digits[index : index + 8], 16) for index in range(0, 104, 8))
        size, name_size = numbers[6], numbers[11]
        name = bytes(view[at + _HEAD : at + _HEAD + name_size])
        begin = (at + _HEAD + name_size + 3) & ~3
        if not 0 < name_size <= _NAME_MAX or len(name) != name_size or name[-1] != 0 or size > len(view) - begin:
            raise Malformed(f"the newc entry at {at} is longer than what is there")
        if name[:-1] == _TRAILER:
            if any(view[begin:]):
                raise Malformed("something follows the archive's trailer")
            return
        yield CpioEntry(name=name[:-1], numbers=numbers, data=view[begin : begin + size])
        at = (begin + size + 3) & ~3


def _first_entry(one: bytes | memoryview, other: bytes | memoryview) -> str:
    mine_by_name, theirs_by_name = ({entry.name: entry for entry in read_cpio(archive)} for archive in (one, other))
    names = mine_by_name.keys() | theirs_by_name.keys()
    for name in sorted(names, key=lambda name: (name.endswith(SENTINEL), name.split(b"/"))):  # which counts the others
        first, second = mine_by_name.get(name), theirs_by_name.get(name)
        if first is None or second is None:
            return f"only one has /{shown(name)}"
        for words, mine, theirs in zip(_WORDS, first.numbers, second.numbers, strict=True):
            if mine != theirs:
                return (
                    f"/{shown(first.name)} differs in its {words}: {mine:#o} and {theirs:#o}"
                    if words == "mode"
                    else (f"/{shown(first.name)} differs in its {words}: {mine} and {theirs}")
                )
        if first.data != second.data:
            return f"/{shown(first.name)} differs in its content"
    return "the same files, packed by another version of the compressor or in another order"


def plain(data: bytes | memoryview) -> bytes | memoryview:
    """A ramdisk as an archive, unpacked when it is compressed. Raises `Malformed`."""
    if bytes(data[:6]) == _MAGIC:
        return data
    spool = Spool(io.BytesIO())
    try:
        unpack([bytes(data)], spool, "a ramdisk")
    except BadImage as error:
        raise Malformed(str(error)) from None
    spool.file.seek(0)
    return spool.file.read()
