"""A tree as a cpio archive in the "newc" form, which Linux unpacks as its first root file system. The same tree gives the same bytes.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Entries are in order of their paths, numbered from 1, without
times and device numbers of the build machine. A file's hard links share its number, and the first carries the content.
"""

import stat
from collections.abc import Callable, Iterator

from runtime.image.contents import BadImage, Body, Node, Tree, shown

FILE_MAX = 2**32 - 1
"""Bytes of one file: the form has eight hexadecimal digits."""
_TRAILER = b"TRAILER!!!"
_ALIGNMENT = 512
"""The kernel skips an archive that starts at an odd place in memory; a whole number of these never moves the next one."""
_CHUNK = 1 << 20

Read = Callable[[Body], Iterator[bytes]]
"""Gives the content of a body in parts."""


def write_cpio(tree: Tree, read: Read) -> Iterator[bytes]:
    """The archive in parts. Raises `BadImage` for a file that the form cannot hold, or whose content is not as long as its size."""
    links: dict[int, int] = {}
    for _, node in tree.walk():
        links[id(node)] = links.get(id(node), 0) + 1
    numbers: dict[int, int] = {}
    written = 0
    for path, node in tree.walk():
        is_first = id(node) not in numbers
        number = numbers.setdefault(id(node), len(numbers) + 1)
        size = _size(node) if is_first else 0
        if size > FILE_MAX:
            raise BadImage(f"{shown(path)}: {size} bytes; a file in an image has at most {FILE_MAX}")
        links_here = links[id(node)] if not node.is_folder else 2
        head = _head(path, node, number=number, links=links_here, size=size)
        yield head
        written += len(head)
        if size:
            for part in (node.target,) if node.is_link else read(node.body):
                size -= len(part)
                written += len(part)
                yield part
            if size:
                raise BadImage(f"{shown(path)}: its content is not as long as its size says")
            yield (padding := bytes(-written % 4))
            written += len(padding)
    tail = _head(_TRAILER, Node(mode=0), number=0, links=1, size=0)
    yield tail + bytes(-(written + len(tail)) % _ALIGNMENT)


def zeros(size: int) -> Iterator[bytes]:
    """A body of nothing but zeros, in parts."""
    while size > 0:
        yield bytes(min(size, _CHUNK))
        size -= _CHUNK


def _size(node: Node) -> int:
    if node.is_link:
        return len(node.target)
    return node.body.size if stat.S_ISREG(node.mode) else 0


def _head(path: bytes, node: Node, *, number: int, links: int, size: int) -> bytes:
    major, minor = node.device
    fields = (number, node.mode, node.uid, node.gid, links, 0, size, 0, 0, major, minor, len(path) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + path + b"\0"
    return head + bytes(-len(head) % 4)
