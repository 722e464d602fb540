"""A folder of this machine as a tree: a root file system that somebody unpacked, or our own runtime. No link is followed."""

import os
import stat
from pathlib import Path

from runtime.image.contents import BadImage, Body, Node, Tree, clean_path, shown


def read_root_folder(folder: Path, tree: Tree) -> tuple[str, ...]:
    """Puts everything in `folder` into `tree`, owners and modes included; the sockets that were left out. Raises `BadImage`.

    Another file system mounted in it (a /proc, somebody's home) is refused: nobody means to bake that.
    """
    links: dict[tuple[int, int], Node] = {}
    sockets: list[str] = []
    try:
        top = folder.stat()
        tree.put(b"", _node(folder, top))
        pending = [folder]
        while pending:
            for path in pending.pop().iterdir():
                status = path.lstat()
                below = os.fsencode(path.relative_to(folder))
                if status.st_dev != top.st_dev:
                    raise BadImage(f"{shown(os.fsencode(path))}: another file system is mounted there")
                if stat.S_ISSOCK(status.st_mode):
                    sockets.append(shown(below))
                    continue
                key = (status.st_dev, status.st_ino)
                node = links.get(key) or _node(path, status)
                if status.st_nlink > 1 and not node.is_folder:
                    links[key] = node
                tree.put(clean_path(below), node)
                if node.is_folder:
                    pending.append(path)
    except OSError as error:
        raise BadImage(f"{shown(os.fsencode(error.filename or folder))}: {error.strerror}") from None
    return tuple(sockets)


def read_runtime_folder(folder: Path) -> Tree:
    """The runtime's folder as it is baked: everything root's, 0755 or 0644, whoever unpacked it under whatever umask. Raises `BadImage`."""
    tree = Tree()
    read_root_folder(folder, tree)
    for path, node in [(b"", tree.root), *tree.walk()]:
        if not (node.is_folder or node.is_link or stat.S_ISREG(node.mode)):
            raise BadImage(f"{folder}: {shown(path)} is neither file nor folder nor link")
        permissions = 0o777 if node.is_link else 0o755 if node.is_folder or node.mode & 0o111 else 0o644
        node.mode, node.uid, node.gid, node.xattrs = stat.S_IFMT(node.mode) | permissions, 0, 0, {}
    return tree


def _node(path: Path, status: os.stat_result) -> Node:
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
    return Node(
        mode=stat.S_IFMT(status.st_mode) | stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        body=Body(size=status.st_size, path=str(path)) if is_file else Body(size=0),
        target=os.fsencode(path.readlink()) if is_link else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        xattrs={} if is_link else {name: os.getxattr(path, name, follow_symlinks=False) for name in _attributes(path)},
    )


def _attributes(path: Path) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []  # a file system without them
