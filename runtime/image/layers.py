"""Layers of a container image, put over each other into one tree. Nothing is extracted: bodies stay in a spool until they are copied.

A layer is a tar archive, perhaps compressed, from whoever made the image. Sources: OCI, *Image Format Specification*, "Image Layer
Filesystem Changeset"; POSIX pax. A whiteout hides what lower layers brought and nothing of its own layer, wherever it stands in it.
"""

import io
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from runtime.image.contents import ENTRIES_MAX, BadImage, Body, Node, Tree, clean_path, shown

FILE_MAX = 2**32 - 1
"""Bytes of one file: what a cpio archive can hold."""
TOTAL_MAX = 8 << 30
"""Bytes of all files together. An enclave's disk is its memory."""
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20
_BUFFER = 1 << 16

_TYPES = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


@dataclass(slots=True)
class Spool:
    """An open file, without a name, that holds the uncompressed layers one after the other."""

    file: BinaryIO

    def read(self, body: Body) -> Iterator[bytes]:
        """The content of a body in parts."""
        if body.data is not None:
            yield body.data
            return
        left = body.size
        self.file.seek(body.offset)
        while left:
            part = self.file.read(min(left, _CHUNK))
            if not part:
                return
            left -= len(part)
            yield part


def apply_layer(tree: Tree, spool: Spool, *, offset: int, size: int) -> None:
    """Puts the tar archive at `offset` of the spool over `tree`. Raises `BadImage`."""
    below = _Below()
    try:
        window = io.BufferedReader(_Window(spool.file, offset, size), _BUFFER)
        with tarfile.open(fileobj=window, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                _apply(tree, member, below, offset)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BadImage(f"a layer is no tar archive that can be read: {error}") from None
    if len(tree) > ENTRIES_MAX:
        raise BadImage(f"more than {ENTRIES_MAX} files")


class _Below:
    """What this layer itself has placed: whiteouts do not hide it. And how much it brings."""

    def __init__(self) -> None:
        self.placed: set[bytes] = set()
        self.size = 0
        self.entries = 0


def _apply(tree: Tree, member: tarfile.TarInfo, layer: _Below, offset: int) -> None:
    raw = member.name.encode("utf-8", "surrogateescape")
    path = clean_path(raw)
    layer.entries += 1
    if layer.entries > ENTRIES_MAX:
        raise BadImage(f"more than {ENTRIES_MAX} entries in a layer")
    parent, _, name = path.rpartition(b"/")
    # A folder that is a link (`lib` to `usr/lib`) is where the link leads, inside the image.
    folder = tree.resolve(parent)
    if name.startswith(_WHITEOUT):
        _hide(tree, folder, name, layer)
        return
    path = b"/".join(part for part in (folder, name) if part)
    node = _node(tree, member, path, layer, offset)
    if node is None:
        return
    before = tree.get(path)
    if before is not None and before.is_folder and node.is_folder and before is not tree.root:
        before.mode, before.uid, before.gid, before.xattrs = node.mode, node.uid, node.gid, node.xattrs
    else:
        tree.put(path, node)
    while path:
        layer.placed.add(path)
        path = path.rpartition(b"/")[0]


def _hide(tree: Tree, folder: bytes, name: bytes, layer: _Below) -> None:
    if name == _OPAQUE:
        for each in tree.names(folder):
            path = b"/".join(part for part in (folder, each) if part)
            _remove_lower(tree, path, layer)
        return
    hidden = name.removeprefix(_WHITEOUT)
    if hidden.startswith(_WHITEOUT):
        return  # what aufs kept for itself
    if hidden in (b"", b".", b".."):
        raise BadImage(f"{shown(name)}: a whiteout of nothing")
    _remove_lower(tree, b"/".join(part for part in (folder, hidden) if part), layer)


def _remove_lower(tree: Tree, path: bytes, layer: _Below) -> None:
    """Removes what lower layers brought there, and keeps what this layer placed below it."""
    if path not in layer.placed:
        tree.remove(path)
        return
    for name in tree.names(path):
        _remove_lower(tree, path + b"/" + name, layer)


def _node(tree: Tree, member: tarfile.TarInfo, path: bytes, layer: _Below, offset: int) -> Node | None:
    if member.islnk():
        target = clean_path(member.linkname.encode("utf-8", "surrogateescape").lstrip(b"/"))
        parent, _, name = target.rpartition(b"/")
        target = b"/".join(part for part in (tree.resolve(parent), name) if part)
        found = tree.get(target)
        if found is None or found.is_folder:
            raise BadImage(f"{shown(path)}: a hard link to {shown(target)}, which is no file here")
        return None if target == path else found
    kind = _TYPES.get(member.type)
    if kind is None:
        raise BadImage(f"{shown(path)}: an entry of the unknown type {member.type!r}")
    if not path and kind != stat.S_IFDIR:
        raise BadImage("the root of a layer is no folder")
    if not 0 <= member.uid < 2**32 or not 0 <= member.gid < 2**32:
        raise BadImage(f"{shown(path)}: an owner that is none")
    body = Body(size=0)
    if kind == stat.S_IFREG:
        if member.sparse is not None:
            raise BadImage(f"{shown(path)}: a sparse file; write the archive without them")
        if member.size > FILE_MAX:
            raise BadImage(f"{shown(path)}: {member.size} bytes; a file in an image has at most {FILE_MAX}")
        layer.size += member.size
        if layer.size > TOTAL_MAX:
            raise BadImage(f"a layer of more than {TOTAL_MAX >> 30} GiB")
        body = Body(size=member.size, offset=offset + member.offset_data)
    target = member.linkname.encode("utf-8", "surrogateescape") if kind == stat.S_IFLNK else b""
    if kind == stat.S_IFLNK and (not target or b"\0" in target or len(target) >= 4096):
        raise BadImage(f"{shown(path)}: a symbolic link to nothing that can be")
    device = (member.devmajor, member.devminor) if kind in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)
    xattrs = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    return Node(
        mode=kind | (member.mode & 0o7777), uid=member.uid, gid=member.gid, body=body, target=target, device=device, xattrs=xattrs
    )


class _Window(io.RawIOBase):
    """A part of a file as a file of its own, read only."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        """As of a file."""
        return True

    def seekable(self) -> bool:
        """As of a file."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of a raw file."""
        view = memoryview(buffer)
        self._file.seek(self._offset + self._at)
        data = self._file.read(min(len(view), max(0, self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """As of a file."""
        return self._at
