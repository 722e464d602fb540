"""The trees of an image's ramdisks: ours, the same for every customer of a release, and theirs.

What they have to hold is told in runtime/enclave/README.md, "What an image must have". AWS's init (aws-nitro-enclaves-sdk-bootstrap,
init.c) loads /nsm.ko, moves into /rootfs and runs what /cmd says there: for it our whole tree lies one folder deeper, in a
ramdisk of its own, and the customer's inside that.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.image.contents import BadImage, Node, Tree, body_of, shown
from runtime.image.kernel import ORDER, Kernel

SENTINEL = b".enclave-complete"
NOT_COUNTED = frozenset({b"dev", b"enclave", b"proc", b"root", b"rootfs", b"run", b"sys", b"tmp"})
"""As in runtime/enclave/init/ramdisk.py, which counts."""
COVERED = (b"dev", b"proc", b"sys")
"""What an image has there is mounted over, so it is not baked."""

_MOUNT_POINTS = (*COVERED, b"run", b"tmp")
_ROOT, _OWN_NAMES = b"rootfs", (b"enclave", b"modules", b"rootfs", SENTINEL)
_AWS_COMMAND = b"/init\n"
_AWS_ENVIRONMENT = b"PATH=/usr/bin\n"  # AWS's init wants the file; the runtime forgets what is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramdisk:
    """One archive: a tree, and the sentinel that comes behind all of it."""

    name: str
    tree: Tree
    last: tuple[bytes, Node] | None


def ramdisks(runtime: Tree, kernel: Kernel, root: Tree, files: Mapping[bytes, bytes]) -> list[Ramdisk]:
    """For an image with our own init. `files` are those of the folder `enclave`. Raises `BadImage`."""
    ours, theirs = Tree(), Tree()
    _place_runtime(ours, runtime, b"")
    _add_mount_points(ours, b"")
    _add_devices(ours)
    for name, module in kernel.modules.items():
        ours.put(b"modules/" + name.encode(), _file(module))
    if kernel.modules:
        order = "".join(f"{name}\n" for name in kernel.modules)
        ours.put(f"modules/{ORDER}".encode(), _file(order.encode()))
    _place_customer(theirs, root, files, b"")
    return [
        Ramdisk(name="runtime", tree=ours, last=sentinel(ours, b"")),
        Ramdisk(name="application", tree=theirs, last=sentinel(theirs, _ROOT)),
    ]


def aws_ramdisks(runtime: Tree, kernel: Kernel, root: Tree, files: Mapping[bytes, bytes]) -> list[Ramdisk]:
    """For an image that AWS's init starts. Raises `BadImage`."""
    if kernel.init is None:
        raise BadImage("the kernel's folder has no init, and AWS's is to start the image")
    if others := [name for name in kernel.modules if name != "nsm.ko"]:
        raise BadImage(f"AWS's init loads nsm.ko and no other module, and the kernel's folder has {others[0]}")
    boot, ours, theirs = Tree(), Tree(), Tree()
    boot.put(b"init", _file(kernel.init, 0o755))
    _add_devices(boot)
    for module in kernel.modules.values():
        boot.put(b"nsm.ko", _file(module))
    ours.put(b"cmd", _file(_AWS_COMMAND))
    ours.put(b"env", _file(_AWS_ENVIRONMENT))
    ours.put(_ROOT, _folder())
    _add_mount_points(ours, _ROOT)
    _place_runtime(ours, runtime, _ROOT)
    _place_customer(theirs, root, files, _ROOT)
    return [
        Ramdisk(name="boot", tree=boot, last=None),
        Ramdisk(name="runtime", tree=ours, last=sentinel(ours, _ROOT)),
        Ramdisk(name="application", tree=theirs, last=sentinel(theirs, _below(_ROOT, _ROOT))),
    ]


def sentinel(tree: Tree, top: bytes) -> tuple[bytes, Node]:
    """The last entry: the number of entries below `top`, itself included, without the folders that do not count."""
    prefix = top + b"/" if top else b""
    counted = sum(
        1
        for path, _ in tree.walk()
        if path.startswith(prefix) and path[len(prefix) :].partition(b"/")[0] not in NOT_COUNTED and path != top
    )
    return prefix + SENTINEL, _file(b"%d\n" % (counted + 1))


def _place_runtime(tree: Tree, runtime: Tree, prefix: bytes) -> None:
    init = runtime.get(b"init")
    if init is None or not stat.S_ISREG(init.mode) or not init.mode & 0o111:
        raise BadImage("the runtime's folder has no executable init: `enclave bundle` makes one")
    for name in _OWN_NAMES:
        if runtime.get(name) is not None:
            raise BadImage(f"the runtime's folder has {shown(name)}, which is the builder's to make")
    for path, node in runtime.walk():
        tree.put(_below(prefix, path), node)


def _place_customer(tree: Tree, root: Tree, files: Mapping[bytes, bytes], prefix: bytes) -> None:
    """Their root, without what is mounted over."""
    tree.put(_below(prefix, b"enclave"), _folder())
    for name, data in files.items():
        tree.put(_below(prefix, b"enclave/" + name), _file(data))
    if root.get(SENTINEL) is not None:
        raise BadImage(f"the image has a file /{shown(SENTINEL)}, which is the builder's to make")
    top = _below(prefix, _ROOT)
    tree.put(top, root.root)
    for name in _MOUNT_POINTS:
        node = root.get(name)
        if node is not None and not node.is_folder:
            raise BadImage(f"/{shown(name)} of the image is no folder, and a file system has to be mounted there")
    for path, node in root.walk():
        first, _, rest = path.partition(b"/")
        if not (rest and first in COVERED):
            tree.put(_below(top, path), node)


def _add_mount_points(tree: Tree, prefix: bytes) -> None:
    for name in _MOUNT_POINTS:
        tree.put(_below(prefix, name), _folder(0o1777 if name == b"tmp" else 0o755))


def _add_devices(tree: Tree) -> None:
    """Without a console the kernel opens none for its first process; it opens that before anything is mounted.

    Python reads urandom as it starts, where the kernel's generator is not seeded yet.
    """
    for name, mode, device in ((b"dev/console", 0o600, (5, 1)), (b"dev/null", 0o666, (1, 3)), (b"dev/urandom", 0o444, (1, 9))):
        tree.put(name, Node(mode=stat.S_IFCHR | mode, device=device))


def _file(data: bytes, mode: int = 0o644) -> Node:
    return Node(mode=stat.S_IFREG | mode, body=body_of(data))


def _folder(mode: int = 0o755) -> Node:
    return Node(mode=stat.S_IFDIR | mode)


def _below(prefix: bytes, path: bytes) -> bytes:
    return prefix + b"/" + path if prefix else path
