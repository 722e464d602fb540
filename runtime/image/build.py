"""Puts an image together: kernel, ramdisks, metadata, signature; and says what is in it, what it costs and what it will measure.

Runs on the build machine. The same inputs give the same bytes on any other machine, at any other time and place: nothing of a build
machine is in an image, and the metadata names no time. Only a signature differs from one build to the next, as ECDSA's do.
"""

import json
import mmap
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.image.contents import BadImage, Node, Read, Tree
from runtime.image.cpio import write_cpio
from runtime.image.eif import Eif, Section, SectionKind, write_eif
from runtime.image.kernel import Kernel
from runtime.image.measure import measure
from runtime.image.ramdisks import Ramdisk, aws_ramdisks, ramdisks
from runtime.image.signing import Signer
from runtime.image.spool import open_spool
from runtime.verifier.reference import Measurement

Init = Literal["own", "aws"]

EPOCH = "1970-01-01T00:00:00+00:00"
_PAGE = 4096
_NODE = 1024  # what the kernel keeps of a file besides its pages, about
_SPARE = 100 << 20
"""Bytes that unpacking needs besides the archives and what comes of them: measured to suffice, and 60 MB less not to."""
_KERNEL = 45 << 20
"""Bytes that the kernel takes of a machine before anybody else: measured with a kernel for virtual machines."""
_RUNTIME = 95 << 20
"""Bytes that the runtime uses besides its files, on two processors and without traffic: measured."""
_FULL = 0.8
"""How full the machine may be then: below the first threshold of `limits` in enclave.toml."""
_FLOOR = 4
"""nitro-cli starts no enclave with less memory than so many times its image file."""
_COMPRESSION = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What goes into an image. `root` is the customer's, `config` their enclave.toml, `image` the `enclave/image.json`."""

    kernel: Kernel
    runtime: Tree
    root: Tree
    read: Read
    config: bytes
    image: bytes
    name: str
    epoch: int
    config_digest: bytes
    init: Init = "own"
    is_compressed: bool = False
    tool_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that can be written. `parts` are bytes by what they are of; `memory` is what an enclave of it needs, in MiB."""

    eif: Eif
    ramdisks: tuple[Ramdisk, ...]
    pcrs: Mapping[int, bytes]
    parts: Mapping[str, int]
    size: int
    memory: int
    reference: Measurement

    def data(self) -> Iterator[bytes | memoryview]:
        """The parts of the file."""
        return write_eif(self.eif.sections, is_aarch64=self.eif.is_aarch64)


def assemble(recipe: Recipe, scratch: Path, progress: Callable[[str], None], signer: Signer | None = None) -> Image:
    """Builds in memory and in files without names in the folder `scratch`. Raises `BadImage`, `CannotSign` or OSError."""
    files = {b"enclave.toml": recipe.config, b"image.json": recipe.image}
    make = ramdisks if recipe.init == "own" else aws_ramdisks
    disks = make(recipe.runtime, recipe.kernel, recipe.root, files)
    _require_architecture(recipe)
    sections = [
        Section(kind=SectionKind.KERNEL, data=recipe.kernel.image),
        Section(kind=SectionKind.COMMAND_LINE, data=recipe.kernel.command_line.encode()),
        Section(kind=SectionKind.METADATA, data=_metadata(recipe)),
    ]
    for disk in disks:
        progress(f"ramdisk {disk.name}: {len(disk.tree)} entries")
        archive = write_cpio(disk.tree, recipe.read, last=disk.last)
        sections.append(
            Section(kind=SectionKind.RAMDISK, data=_mapped(_gzip(archive) if recipe.is_compressed else archive, scratch))
        )
    eif = _eif(recipe, sections)
    if signer is not None:
        progress("signing")
        section = signer.section(measure(eif).pcrs[0])
        eif = _eif(recipe, [*sections, Section(kind=SectionKind.SIGNATURE, data=section)])
    pcrs = measure(eif).pcrs
    size = sum(map(len, write_eif(eif.sections, is_aarch64=eif.is_aarch64)))
    return Image(
        eif=eif,
        ramdisks=tuple(disks),
        pcrs=pcrs,
        parts=_parts(eif, disks),
        size=size,
        memory=_memory(eif, disks, size),
        reference=Measurement(
            name=f"{recipe.name} {recipe.epoch} {pcrs[0].hex()[:12]}",
            pcrs=dict(sorted(pcrs.items())),
            epoch=recipe.epoch,
            config_digest=recipe.config_digest,
        ),
    )


def file_sizes(disk: Ramdisk) -> Iterator[tuple[bytes, Node, int]]:
    """Path, node and bytes of each file of a ramdisk, a file with several links once."""
    seen: set[int] = set()
    for path, node in disk.tree.walk():
        if stat.S_ISREG(node.mode) and id(node) not in seen:
            seen.add(id(node))
            yield path, node, node.body.size


def _eif(recipe: Recipe, sections: Iterable[Section]) -> Eif:
    return Eif(version=4, is_aarch64=recipe.kernel.is_aarch64, sections=tuple(sections))


def _metadata(recipe: Recipe) -> bytes:
    """In AWS's form, all of whose keys its reader wants. No register covers it."""
    compression = {"Compression": f"gzip -{_COMPRESSION} by zlib {zlib.ZLIB_RUNTIME_VERSION}"} if recipe.is_compressed else {}
    table = {
        "ImageName": recipe.name,
        "ImageVersion": str(recipe.epoch),
        "BuildMetadata": {
            "BuildTime": EPOCH,
            "BuildTool": "enclave-runtime",
            "BuildToolVersion": recipe.tool_version,
            "OperatingSystem": "Linux",
            "KernelVersion": recipe.kernel.version,
        },
        "DockerInfo": None,
        "CustomMetadata": {"ConfigDigest": recipe.config_digest.hex(), "Init": recipe.init, **compression},
    }
    return json.dumps(table).encode()


def _mapped(parts: Iterable[bytes], scratch: Path) -> memoryview:
    """The bytes as memory that the disk stands for."""
    file = open_spool(scratch).file
    with file:
        for part in parts:
            file.write(part)
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _gzip(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Without name and time in its header (RFC 1952), and ending at a place where the kernel looks for the next archive."""
    encoder = zlib.compressobj(_COMPRESSION, zlib.DEFLATED, -zlib.MAX_WBITS)
    crc = size = written = 0
    head = b"\x1f\x8b\x08\x00" + bytes(5) + b"\xff"
    yield head
    for part in parts:
        crc, size = zlib.crc32(part, crc), size + len(part)
        if packed := encoder.compress(part):
            written += len(packed)
            yield packed
    tail = encoder.flush() + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    yield tail + bytes(-(len(head) + written + len(tail)) % 4)


def _parts(eif: Eif, disks: list[Ramdisk]) -> dict[str, int]:
    """Bytes of the file, by what they are of; of the ramdisks' files before compression, the largest folders first."""
    parts = {"kernel": len(eif.one_of(SectionKind.KERNEL) or b"")}
    archives = eif.all_of(SectionKind.RAMDISK)
    for disk, archive in zip(disks, archives, strict=True):
        parts[f"ramdisk {disk.name}"] = len(archive)
        folders: dict[str, int] = {}
        for path, _, size in file_sizes(disk):
            top = b"/".join(path.split(b"/")[:2]).decode("utf-8", "backslashreplace")
            folders[top] = folders.get(top, 0) + size
        parts |= {f"  {top}": size for top, size in sorted(folders.items(), key=lambda item: (-item[1], item[0]))}
    if (signature := eif.one_of(SectionKind.SIGNATURE)) is not None:
        parts["signature"] = len(signature)
    return parts


def _memory(eif: Eif, disks: list[Ramdisk], size: int) -> int:
    """To boot, when archives and what comes of them are there at once; and to run, when the archives are gone. Files take whole pages."""
    packed = sum(map(len, eif.all_of(SectionKind.RAMDISK)))
    pages = sum(-(-file // _PAGE) * _PAGE for disk in disks for _, _, file in file_sizes(disk))
    unpacked = pages + sum(len(disk.tree) for disk in disks) * _NODE
    running = _KERNEL + int((unpacked + _RUNTIME) / _FULL)
    return -(-max(packed + unpacked + _SPARE, running, _FLOOR * size) // 2**20)


_MACHINES = {False: b"\x3e\x00", True: b"\xb7\x00"}  # EM_X86_64, EM_AARCH64


def _require_architecture(recipe: Recipe) -> None:
    """The runtime's programs are for the kernel's processor."""
    for _, node in recipe.runtime.walk():
        if stat.S_ISREG(node.mode) and node.mode & 0o111 and node.body.size >= 20:
            head = next(recipe.read(node.body), b"")[:20]
            if head.startswith(b"\x7fELF") and head[18:20] != _MACHINES[recipe.kernel.is_aarch64]:
                raise BadImage("the runtime's folder and the kernel are for different processors")
