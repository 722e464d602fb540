"""What of a customer's image cannot be in an enclave as it was in a container: said by name, and refused where that would change it."""

import stat
from collections.abc import Collection
from dataclasses import dataclass

from runtime.image.contents import BadImage, Node, Tree, shown
from runtime.image.declared import Declared
from runtime.image.ramdisks import COVERED
from runtime.image.sources import Source

CAPABILITY = "security.capability"
_MEANINGLESS = ("security.selinux", "security.ima", "security.evm", "trusted.overlay.", "user.overlay.", "user.containers.")
"""Of the machine that made the image, not of the image."""
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a person should know, a sentence each. `capabilities` are the files that had some."""

    notes: tuple[str, ...]
    capabilities: tuple[str, ...]


def judge(source: Source, dropped: Collection[str] = ()) -> Verdict:
    """Makes the working folder where the image lacks it, as container runtimes do. `dropped` are extended attributes that may be lost.

    Raises `BadImage` for an extended attribute that would be lost: a ramdisk has none.
    """
    tree = source.tree
    if not len(tree):
        raise BadImage("no file is in the image")
    notes = [f"left out: the socket /{name}" for name in source.left_out]
    privileged, capable, devices = [], [], []
    for path, node in tree.walk():
        if path.partition(b"/")[0] in COVERED:
            continue
        if stat.S_ISREG(node.mode) and node.mode & (stat.S_ISUID | stat.S_ISGID):
            privileged.append(shown(path))
        if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            devices.append(shown(path))
        for name in node.xattrs:
            if name == CAPABILITY:
                capable.append(shown(path))
            elif name not in dropped and not name.startswith(_MEANINGLESS):
                raise BadImage(
                    f"{shown(path)} has the extended attribute {name!a}, which a ramdisk cannot hold: drop it by its name"
                )
    if capable:
        notes.append(f"file capabilities have no effect in an enclave, nothing gains privileges there: {_some(capable)}")
    if privileged:
        notes.append(f"set-user-ID and set-group-ID have no effect in an enclave: {_some(privileged)}")
    if devices:
        notes.append(f"device nodes have no effect in an enclave: {_some(devices)}")
    notes += _unused(source.declared)
    if made := _make_folder(tree, source.declared.directory):
        notes.append(f"made the image's WorkingDir, which it lacks: /{made}")
    return Verdict(notes=tuple(notes), capabilities=tuple(capable))


def _unused(declared: Declared) -> list[str]:
    notes = []
    if declared.stop_signal not in ("", "SIGTERM", "15"):
        notes.append(
            f"the image's StopSignal {declared.stop_signal!a} is not used: a process is stopped with SIGTERM, or by its `pre_stop`"
        )
    if declared.has_health_check:
        notes.append("the image's Healthcheck is not used: `ready` in enclave.toml says when a process is ready")
    return notes


def _make_folder(tree: Tree, directory: str) -> str:
    path = tree.resolve(directory.encode())
    if not path or tree.get(path) is not None:
        return ""
    tree.put(path, Node(mode=stat.S_IFDIR | 0o755))
    return shown(path)


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(f"/{path}" for path in paths[:_SHOWN]) + more
