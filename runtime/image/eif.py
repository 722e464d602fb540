"""The enclave image file (EIF) as bytes: read strictly, written in one form. Pure; runs on the build machine.

Source: AWS, *Enclave image file specification*. Everything is big-endian: a header of 548 bytes with the place and size of each
section, then the sections back to back, each with a header of 12 bytes. AWS's reader walks the file and ignores the header's places,
QEMU follows them: a file in which the two differ is two images in one, and is refused. An image may be larger than what one
wants to hold in memory twice, so sections are views and writing gives parts.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from runtime.protocol.errors import Malformed

HEADER_SIZE = 548
SECTION_HEADER_SIZE = 12
SECTIONS_MAX = 32
VERSION = 4
SIGNATURE_MAX = 32_768
METADATA_MAX = 1 << 20

_MAGIC = b".eif"
_HEADER = struct.Struct(">4sHHQQHH32Q32QI")
_SECTION = struct.Struct(">HHQ")
_CRC_AT = 544
_AARCH64 = 1
_DEFAULT_MEMORY = 1 << 30  # bytes; AWS's tools write these two, and nothing reads them
_DEFAULT_CPUS = 2


class SectionKind(IntEnum):
    """The types of sections; any other is refused."""

    KERNEL = 1
    COMMAND_LINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


_KINDS = frozenset(map(int, SectionKind))


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section's data, without its header."""

    kind: SectionKind
    data: bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Eif:
    """An image whose structure is right. What is signed or written in it is not judged here."""

    version: int
    is_aarch64: bool
    sections: tuple[Section, ...]

    def all_of(self, kind: SectionKind) -> list[bytes | memoryview]:
        """The data of every section of this kind, in file order."""
        return [section.data for section in self.sections if section.kind is kind]

    def one_of(self, kind: SectionKind) -> bytes | memoryview | None:
        """The data of the section of this kind, or None. Only ramdisks come more than once."""
        return next(iter(self.all_of(kind)), None)


def read_eif(data: bytes | memoryview) -> Eif:
    """Reads a whole file. Raises `Malformed` for whatever the specification does not allow, a wrong CRC and trailing bytes included."""
    view = memoryview(data)
    if len(view) < HEADER_SIZE:
        raise Malformed(f"an image has at least {HEADER_SIZE} bytes, this has {len(view)}")
    magic, version, flags, _, _, _, count, *rest = _HEADER.unpack_from(view)
    places, sizes = rest[:SECTIONS_MAX], rest[SECTIONS_MAX : 2 * SECTIONS_MAX]
    if magic != _MAGIC:
        raise Malformed("no enclave image file: it does not begin with .eif")
    if version not in (2, 3, VERSION):
        raise Malformed(f"version {version} of the format is not known")
    if flags & ~_AARCH64:
        raise Malformed(f"unknown flags {flags:#06x}")
    if not 2 <= count <= SECTIONS_MAX:
        raise Malformed(f"{count} sections; 2 to {SECTIONS_MAX} are allowed")
    if any(places[count:]) or any(sizes[count:]):
        raise Malformed("the header has places of more sections than it counts")
    sections = _sections(view, count, places, sizes)
    _require_order(sections, version)
    stored = int.from_bytes(view[_CRC_AT:HEADER_SIZE], "big")
    if crc32(view[HEADER_SIZE:], crc32(view[:_CRC_AT])) != stored:
        raise Malformed("the CRC is wrong: the file was damaged or altered")
    return Eif(version=version, is_aarch64=bool(flags & _AARCH64), sections=sections)


def write_eif(sections: Sequence[Section], *, is_aarch64: bool) -> Iterator[bytes | memoryview]:
    """The parts of a file of these sections in this order; their concatenation is the file. Raises `Malformed` as `read_eif`."""
    _require_order(sections, VERSION)
    if len(sections) > SECTIONS_MAX:
        raise Malformed(f"{len(sections)} sections; {SECTIONS_MAX} are allowed")
    places, at = [], HEADER_SIZE
    for section in sections:
        places.append(at)
        at += SECTION_HEADER_SIZE + len(section.data)
    unused = [0] * (SECTIONS_MAX - len(sections))
    sizes = [len(section.data) for section in sections]
    header = _HEADER.pack(
        *(_MAGIC, VERSION, _AARCH64 if is_aarch64 else 0, _DEFAULT_MEMORY, _DEFAULT_CPUS, 0, len(sections)),
        *(places + unused + sizes + unused),
        0,
    )
    parts: list[bytes | memoryview] = []
    for section in sections:
        parts += [_SECTION.pack(section.kind, 0, len(section.data)), section.data]
    crc = crc32(header)
    for part in parts:
        crc = crc32(part, crc)
    yield header + crc.to_bytes(4, "big")
    yield from parts


def _sections(view: memoryview, count: int, places: Sequence[int], sizes: Sequence[int]) -> tuple[Section, ...]:
    sections, at = [], HEADER_SIZE
    for number, (place, size) in enumerate(zip(places[:count], sizes[:count], strict=True)):
        if len(view) - at < SECTION_HEADER_SIZE:
            raise Malformed(f"the file ends before section {number}")
        kind, flags, length = _SECTION.unpack_from(view, at)
        if place != at or size != length:
            raise Malformed(f"the file's header and section {number} disagree about its place or size")
        if kind not in _KINDS or flags:
            raise Malformed(f"section {number} has the unknown type {kind} or flags {flags:#06x}")
        begin = at + SECTION_HEADER_SIZE
        if length > len(view) - begin:
            raise Malformed(f"section {number} is said to have {length} bytes, of which {len(view) - begin} are there")
        at = begin + length
        sections.append(Section(kind=SectionKind(kind), data=view[begin:at]))
    if at != len(view):
        raise Malformed(f"{len(view) - at} bytes follow the last section")
    return tuple(sections)


def _require_order(sections: Sequence[Section], version: int) -> None:
    kinds = [section.kind for section in sections]
    for kind in (SectionKind.KERNEL, SectionKind.COMMAND_LINE):
        if kinds.count(kind) != 1:
            raise Malformed(f"{kinds.count(kind)} sections of type {kind.name}; exactly one is needed")
    for kind, most in ((SectionKind.SIGNATURE, SIGNATURE_MAX), (SectionKind.METADATA, METADATA_MAX)):
        if kinds.count(kind) > 1:
            raise Malformed(f"more than one section of type {kind.name}")
        if any(section.kind is kind and len(section.data) > most for section in sections):
            raise Malformed(f"a section of type {kind.name} with more than {most} bytes")
    if version >= VERSION and SectionKind.METADATA not in kinds:
        raise Malformed("no metadata, which version 4 of the format needs")
    if SectionKind.RAMDISK not in kinds:
        raise Malformed("no ramdisk: there is nothing to boot")
    # The specification allows others, which no tool writes; registers are of the sections in file order.
    if kinds[:2] != [SectionKind.KERNEL, SectionKind.COMMAND_LINE]:
        raise Malformed("an image begins with its kernel and its command line")
