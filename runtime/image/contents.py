"""A root file system as a value: paths and what is at them. Built up by layers, never on the build machine's own disk.

Names come from whoever made the image, so each is judged before it becomes part of a tree: a path that leaves the root, or a name
that no file system has, is `BadImage`. Symbolic links are followed only inside the tree, as the machine that will boot it would.
"""

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

NAME_MAX = 255
"""Bytes of one name (Linux)."""
PATH_MAX = 4096
ENTRIES_MAX = 500_000
"""Files, folders and links of a whole image, and entries of one layer: a dozen times what a large distribution has."""
DEPTH_MAX = 256
"""Names of one path."""
_LINKS_MAX = 40  # as Linux's own limit for one lookup


class BadImage(Exception):
    """The input is no image that can be built from; the message is for the person who brought it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The content of a file: a part of an open spool, bytes, or a file of this machine. `size` in bytes."""

    size: int
    offset: int = 0
    data: bytes | None = None
    path: str | None = None


Read = Callable[[Body], Iterator[bytes]]
"""Gives the content of a body in parts."""


def body_of(data: bytes) -> Body:
    """A body of these bytes."""
    return Body(size=len(data), data=data)


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One inode. `mode` is type and permissions as in stat(2); hard links are several paths to one `Node`."""

    mode: int
    uid: int = 0
    gid: int = 0
    body: Body = field(default_factory=lambda: Body(size=0))
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether it can have children."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


class Tree:
    """Nodes by their path, which is relative to the root and without `.`, `..` or a final slash; the root itself is always there."""

    def __init__(self) -> None:
        self.root = Node(mode=stat.S_IFDIR | 0o755)
        self._children: dict[bytes, dict[bytes, Node]] = {b"": {}}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, path: bytes) -> Node | None:
        """What is at exactly this path, no link followed."""
        if not path:
            return self.root
        parent, _, name = path.rpartition(b"/")
        return self._children.get(parent, {}).get(name)

    def names(self, path: bytes) -> frozenset[bytes]:
        """The names in a folder."""
        return frozenset(self._children.get(path, ()))

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path and its node, in bytewise order of the paths, a folder before what is in it."""
        pending = [(b"", self.root)]
        found: list[tuple[bytes, Node]] = []
        while pending:
            path, node = pending.pop()
            if path:
                found.append((path, node))
            prefix = path + b"/" if path else b""
            pending += [(prefix + name, child) for name, child in self._children.get(path, {}).items()]
        yield from sorted(found, key=lambda item: item[0].split(b"/"))

    def put(self, path: bytes, node: Node) -> None:
        """Places a node. Folders on the way that are not there are made; a folder over a folder keeps its children.

        Raises `BadImage` when something on the way is no folder, and beyond `ENTRIES_MAX` and `DEPTH_MAX`.
        """
        if not path:
            self.root = node
            return
        if path.count(b"/") >= DEPTH_MAX:
            raise BadImage(f"{shown(path[:60])}…: more than {DEPTH_MAX} folders in each other")
        parent, _, name = path.rpartition(b"/")
        self._make_folders(parent)
        before = self._children[parent].get(name)
        if before is not None and before.is_folder and not node.is_folder:
            self.remove(path)
        self._place(parent, name, node)
        if node.is_folder:
            self._children.setdefault(path, {})

    def remove(self, path: bytes) -> None:
        """Removes what is at this path, and what is below it; nothing happens when nothing is there."""
        parent, _, name = path.rpartition(b"/")
        if path and self._children.get(parent, {}).pop(name, None) is not None:
            self._count -= 1
            self.clear(path)
            self._children.pop(path, None)

    def clear(self, path: bytes) -> None:
        """Removes everything below a folder."""
        pending = [path]
        while pending:
            here = pending.pop()
            prefix = here + b"/" if here else b""
            names = list(self._children.get(here, ()))
            pending += [prefix + name for name in names if prefix + name in self._children]
            self._count -= len(names)
            if here in self._children:
                self._children[here].clear()
            if here != path:
                self._children.pop(here, None)

    def resolve(self, path: bytes) -> bytes:
        """`path` with every symbolic link in it followed inside the tree, also that of its last name. Raises `BadImage` for a loop."""
        done: list[bytes] = []
        rest = [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
        followed = 0
        while rest:
            name = rest.pop()
            if name == b"..":
                if done:
                    done.pop()
                continue
            node = self.get(b"/".join([*done, name]))
            if node is None or not node.is_link:
                done.append(name)
                continue
            followed += 1
            if followed > _LINKS_MAX:
                raise BadImage(f"{shown(path)}: too many symbolic links")
            if node.target.startswith(b"/"):
                done.clear()
            rest += [each for each in reversed(node.target.split(b"/")) if each not in (b"", b".")]
        return b"/".join(done)

    def _make_folders(self, path: bytes) -> None:
        names = path.split(b"/") if path else []
        for index in range(len(names)):
            parent, here = b"/".join(names[:index]), b"/".join(names[: index + 1])
            node = self._children[parent].get(names[index])
            if node is None:
                self._place(parent, names[index], Node(mode=stat.S_IFDIR | 0o755))
                self._children[here] = {}
            elif not node.is_folder:
                raise BadImage(f"{shown(here)} is no folder, and something is to be placed in it")

    def _place(self, parent: bytes, name: bytes, node: Node) -> None:
        self._count += name not in self._children[parent]
        if self._count > ENTRIES_MAX:
            raise BadImage(f"more than {ENTRIES_MAX} files")
        self._children[parent][name] = node


def clean_path(name: bytes) -> bytes:
    """A name of an archive as a path of a tree: `./a//b/` is `a/b`. Raises `BadImage` for one that leaves the root or cannot be."""
    if b"\0" in name:
        raise BadImage(f"{shown(name)}: a NUL in a name")
    if name.startswith(b"/"):
        raise BadImage(f"{shown(name)}: an absolute path in an archive")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise BadImage(f"{shown(name)}: a path that leads out of the image")
    if any(len(part) > NAME_MAX for part in parts) or len(name) > PATH_MAX:
        raise BadImage(f"{shown(name[:60])}…: a name of more than {NAME_MAX} bytes, or a path of more than {PATH_MAX}")
    if len(parts) > DEPTH_MAX:
        raise BadImage(f"{shown(name[:60])}…: more than {DEPTH_MAX} folders in each other")
    return b"/".join(parts)


def shown(path: bytes) -> str:
    """A path for people: nothing in it drives a terminal."""
    return path.decode("utf-8", "backslashreplace").encode("ascii", "backslashreplace").decode().translate(_CONTROLS) or "/"


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
