"""Tar layers as tests write them, and cpio archives as an independent reader reads them."""

import io
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.image.contents import Tree
from runtime.image.cpio import write_cpio
from runtime.image.layers import apply_layer
from runtime.image.spool import Spool


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a tar archive."""

    name: str
    kind: bytes = tarfile.REGTYPE
    data: bytes = b""
    mode: int = 0o644
    link: str = ""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    headers: tuple[tuple[str, str], ...] = ()


def folder(name: str) -> Entry:
    return Entry(name=name, kind=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> Entry:
    return Entry(name=name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hard(name: str, target: str) -> Entry:
    return Entry(name=name, kind=tarfile.LNKTYPE, link=target)


def file(name: str, data: bytes = b"x", mode: int = 0o644) -> Entry:
    return Entry(name=name, data=data, mode=mode)


def layer(*entries: Entry) -> bytes:
    """A tar archive of these entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.type, member.mode, member.linkname = entry.kind, entry.mode, entry.link
            member.uid, member.gid, member.size = entry.uid, entry.gid, len(entry.data)
            member.devmajor, member.devminor = entry.device
            member.pax_headers = dict(entry.headers)
            tar.addfile(member, io.BytesIO(entry.data))
    return out.getvalue()


def flattened(layers: Iterable[bytes]) -> tuple[Tree, Spool]:
    """These layers over each other, the first lowest."""
    spool, tree = Spool(io.BytesIO()), Tree()
    for data in layers:
        offset = spool.file.seek(0, 2)
        spool.file.write(data)
        apply_layer(tree, spool, offset=offset, size=len(data))
    return tree, spool


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """One entry of a cpio archive."""

    number: int
    mode: int
    uid: int
    gid: int
    links: int
    device: tuple[int, int]
    data: bytes


def unpacked(archive: bytes) -> dict[str, Unpacked]:
    """Reads a newc archive to its trailer, as the kernel does: by offsets, four bytes at a time."""
    entries: dict[str, Unpacked] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        number, mode, uid, gid, links, time, size, major, minor, rmajor, rminor, name_size, check = (
            int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)
        )
        assert (time, check, major, minor) == (0, 0, 0, 0)
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at = (at + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not any(archive[at:])
            return entries
        data = archive[at : at + size]
        at = (at + size + 3) & ~3
        key = name[:-1].decode("utf-8", "surrogateescape")
        assert key not in entries
        entries[key] = Unpacked(number=number, mode=mode, uid=uid, gid=gid, links=links, device=(rmajor, rminor), data=data)


def image(*layers: bytes) -> dict[str, Unpacked]:
    """What a machine finds that boots an image of these layers."""
    tree, spool = flattened(layers)
    archive = b"".join(write_cpio(tree, spool.read))
    assert len(archive) % 512 == 0
    return unpacked(archive)


def kind_of(entry: Unpacked) -> str:
    """One letter, as `ls -l` has it."""
    return stat.filemode(entry.mode)[0]
