"""Tar archives and folders as files by name: what a container image comes in. Nothing is extracted, and no link leads out.

The archive comes from whoever made the image. Python's `tarfile` finds the headers; contents are never read through it.
"""

import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runtime.image.contents import ENTRIES_MAX, BadImage, Body, Read, clean_path, shown
from runtime.image.spool import Spool, Window

_BUFFER = 1 << 16
_HEADER_MAX = 1 << 20
_LINKS_MAX = 8


def members(file: BinaryIO, *, offset: int, size: int) -> Iterator[tarfile.TarInfo]:
    """The entries of the archive at this place of a file. Raises `BadImage`, also for one that was cut off or damaged further on."""
    window = _Headers(Window(file, offset, size), _BUFFER)
    try:
        with tarfile.open(fileobj=window, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                vars(tar)["members"].clear()  # it would keep all of them
                yield member
            _require_end(window, tar.offset)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise BadImage(f"no tar archive that can be read: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Files by name. `top` are the names of the top folder; `find` raises `BadImage` for a name that is no file; `read` as `Spool.read`."""

    top: frozenset[str]
    find: Callable[[str], Body]
    read: Read

    def whole(self, name: str, most: int) -> bytes:
        """A file of at most `most` bytes. Raises `BadImage`."""
        body = self.find(name)
        if body.size > most:
            raise BadImage(f"{name}: {body.size} bytes; {most} are allowed")
        data = b"".join(self.read(body))
        if len(data) != body.size:
            raise BadImage(f"{name}: cut off")
        return data


def folder_files(folder: Path) -> Files:
    """The files of a folder of this machine. Links in it may lead to other places of it, and not out of it. Raises `BadImage`."""
    base = folder.resolve()

    def find(name: str) -> Body:
        clean_path(os.fsencode(name))
        try:
            path = (base / name).resolve(strict=True)
            status = path.stat()
        except OSError as error:
            raise BadImage(f"{folder / name}: {error.strerror}") from None
        if not path.is_relative_to(base) or not stat.S_ISREG(status.st_mode):
            raise BadImage(f"{folder / name}: no file of this folder")
        return Body(size=status.st_size, path=str(path))

    try:
        return Files(top=frozenset(path.name for path in base.iterdir()), find=find, read=Spool(io.BytesIO()).read)
    except OSError as error:
        raise BadImage(f"{folder}: {error.strerror}") from None


def archive_files(spool: Spool, *, offset: int, size: int) -> Files:
    """The files of a tar archive in a spool. A link in it stands for a file of the same archive. Raises `BadImage`."""
    bodies: dict[bytes, Body] = {}
    links: dict[bytes, bytes] = {}
    for count, member in enumerate(members(spool.file, offset=offset, size=size), 1):
        if count > ENTRIES_MAX:
            raise BadImage(f"more than {ENTRIES_MAX} entries")
        path = clean_path(member.name.encode("utf-8", "surrogateescape"))
        if path in bodies or path in links:
            raise BadImage(f"{shown(path)} stands twice in the archive")
        if member.isreg() and member.sparse is None:
            bodies[path] = Body(size=member.size, offset=offset + member.offset_data)
        elif member.islnk() or member.issym():
            target = member.linkname.encode("utf-8", "surrogateescape")
            links[path] = target if member.islnk() else _beside(path, target)

    def find(name: str) -> Body:
        path = clean_path(name.encode("utf-8", "surrogateescape"))
        for _ in range(_LINKS_MAX):
            if path in bodies:
                return bodies[path]
            if path not in links:
                break
            path = clean_path(links[path])
        raise BadImage(f"{shown(path)} is no file of the archive")

    top = frozenset(path.decode("utf-8", "surrogateescape") for path in (*bodies, *links) if b"/" not in path)
    return Files(top=top, find=find, read=spool.read)


def _beside(path: bytes, target: bytes) -> bytes:
    """Where a symbolic link of the archive leads; what leads out of it is found out by `clean_path`."""
    if target.startswith(b"/"):
        return target
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _require_end(window: io.BufferedReader, offset: int) -> None:
    """`tarfile` takes damage behind the first entry for the end: an archive ends with zeros, or right behind an entry."""
    window.seek(offset)
    block = window.read(tarfile.BLOCKSIZE)
    if any(block) or len(block) not in (0, tarfile.BLOCKSIZE):
        raise BadImage("no tar archive that can be read: damaged or cut off")


class _Headers(io.BufferedReader):
    """`tarfile` reads headers and no contents: what asks for more at once is a header of any size that somebody wrote into one."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file. Raises ValueError."""
        if size is None or not 0 <= size <= _HEADER_MAX:
            raise ValueError(f"a header of more than {_HEADER_MAX} bytes")
        return super().read(size)
