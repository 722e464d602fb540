"""Layers of a container image, put over each other into one tree. Nothing is extracted: bodies stay in a spool until they are copied.

A layer is a tar archive, perhaps compressed, from whoever made the image. Sources: OCI, *Image Format Specification*, "Image Layer
Filesystem Changeset"; POSIX pax. A whiteout hides what lower layers brought and nothing of its own layer, wherever it stands in it.
"""

import stat
import tarfile

from runtime.image.archive import members
from runtime.image.contents import ENTRIES_MAX, BadImage, Body, Node, Tree, clean_path, shown
from runtime.image.spool import Spool

FILE_MAX = 2**32 - 1
"""Bytes of one file: what a cpio archive can hold."""
TOTAL_MAX = 8 << 30
"""Bytes of all files together. An enclave's disk is its memory."""
XATTRS_MAX = 64 << 10
"""Bytes of the attributes of one file, names included: Linux takes no longer value."""
LAYER_XATTRS_MAX = 16 << 20
_HEADERS_MAX = 1024
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_XATTR = "SCHILY.xattr."

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


def apply_layer(tree: Tree, spool: Spool, *, offset: int, size: int) -> None:
    """Puts the tar archive at `offset` of the spool over `tree`. Raises `BadImage`."""
    below = _Below()
    for member in members(spool.file, offset=offset, size=size):
        _apply(tree, member, below, offset)


class _Below:
    """What this layer itself has placed: whiteouts do not hide it. And how much it brings."""

    def __init__(self) -> None:
        self.placed: set[bytes] = set()
        self.size = 0
        self.xattrs = 0
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
    return Node(
        mode=kind | (member.mode & 0o7777),
        uid=member.uid,
        gid=member.gid,
        body=body,
        target=target,
        device=device,
        xattrs=_xattrs(member, path, layer),
    )


def _xattrs(member: tarfile.TarInfo, path: bytes, layer: _Below) -> dict[str, bytes]:
    """A global header gives its own to every entry behind it, so that a few bytes could stand for any number of them."""
    if len(member.pax_headers) > _HEADERS_MAX:
        raise BadImage(f"{shown(path)}: more than {_HEADERS_MAX} pax headers")
    xattrs = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    size = sum(len(key) + len(value) for key, value in xattrs.items())
    layer.xattrs += size
    if size > XATTRS_MAX or layer.xattrs > LAYER_XATTRS_MAX:
        raise BadImage(f"{shown(path)}: attributes of more than {XATTRS_MAX} bytes, or {LAYER_XATTRS_MAX} in a layer")
    return xattrs
