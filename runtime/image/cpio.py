"""A tree as a cpio archive in the "newc" form, which Linux unpacks as its first root file system. The same tree gives the same bytes.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Entries are in order of their paths, numbered from 1, without
times and device numbers of the build machine. A file's hard links share its number, and the first carries the content.
"""

import stat
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from runtime.image.contents import PATH_MAX, BadImage, Node, Read, Tree, shown

FILE_MAX = 2**32 - 1
"""Bytes of one file: the form has eight hexadecimal digits."""
_TRAILER = b"TRAILER!!!"
_ALIGNMENT = 512
"""The kernel skips an archive that starts at an odd place in memory; a whole number of these never moves the next one."""


def write_cpio(tree: Tree, read: Read, *, last: tuple[bytes, Node] | None = None) -> Iterator[bytes]:
    """The archive in parts; `last` comes behind everything else. Raises `BadImage` for what the form or the kernel cannot hold, or
    for content that is not as long as its size."""
    links = Counter(id(node) for _, node in tree.walk())
    numbers: dict[int, int] = {}
    count = written = 0
    for path, node in chain(tree.walk(), () if last is None else (last,)):
        # The kernel links regular files and devices only: of a symbolic link that came without its target it would make nothing.
        is_shared = links[id(node)] > 1 and not node.is_link
        is_first = not is_shared or id(node) not in numbers
        count += is_first
        number = numbers.setdefault(id(node), count) if is_shared else count
        size = _size(node) if is_first else 0
        if size > FILE_MAX:
            raise BadImage(f"{shown(path)}: {size} bytes; a file in an image has at most {FILE_MAX}")
        if len(path) >= PATH_MAX:
            raise BadImage(f"{shown(path[:60])}…: a path of {len(path)} bytes; Linux takes less than {PATH_MAX}")
        links_here = 2 if node.is_folder else links[id(node)] if is_shared else 1
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


def _size(node: Node) -> int:
    if node.is_link:
        return len(node.target)
    return node.body.size if stat.S_ISREG(node.mode) else 0


def _head(path: bytes, node: Node, *, number: int, links: int, size: int) -> bytes:
    major, minor = node.device
    fields = (number, node.mode, node.uid, node.gid, links, 0, size, 0, 0, major, minor, len(path) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + path + b"\0"
    return head + bytes(-len(head) % 4)
