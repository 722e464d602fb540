"""The customer's root file system in a simulation: this machine's own, read-only, without the simulator's state.

Its /proc, /sys and /dev are made as in an image, by runtime/enclave/init/mounts.py.

A real image brings its root under /rootfs; here it is a view of the machine, so that any command of this machine can be the customer's
process under its own user. What that user could not even pass through (a home folder of mode 0700 with the interpreter or the program
in it) is covered by an empty folder in which only the needed parts are shown.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from runtime.enclave.init.mounts import is_mounted
from runtime.simulator.namespaces import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, detach, make_private, make_read_only, mount

_NOT_SHOWN = ("proc", "sys", "dev")
_SMALL = "size=1m,mode=0755"


def build_root(root: Path, *, shown: Iterable[Path], hidden: Iterable[Path]) -> None:
    """Mounts the view on the empty folder `root`. Call it in a mount namespace of your own. Raises OSError where the machine forbids it.

    `shown` are folders that every user must be able to reach, `hidden` folders of which nothing may be seen.
    """
    bind(Path("/"), root)
    make_private(root)
    for name in _NOT_SHOWN:
        if is_mounted(root / name):
            detach(root / name)
    make_read_only(root)
    mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    show_folders(root, shown)
    for folder in hidden:
        if _below(root, folder).exists():
            mount("none", _below(root, folder), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=0000")


def show_folders(root: Path, folders: Iterable[Path]) -> None:
    """Makes folders of this machine reachable for every user below `root`, which may be / itself. Raises OSError.

    The first ancestor of each that is there and not open to everybody is covered, and the folder bound into the cover; read-only,
    unless it is in / itself.
    """
    opened = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in folders}  # before any is covered
    try:
        for folder, descriptor in opened.items():
            _show(root, folder, Path(f"/proc/self/fd/{descriptor}"))
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _show(root: Path, folder: Path, source: Path) -> None:
    target = _below(root, folder)
    closed = _first_closed(root, folder)
    if closed is None and target.exists():
        return
    if closed is not None and closed != target:
        mount("tmpfs", closed, "tmpfs", MS_NOSUID | MS_NODEV, _SMALL)
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    if _is_closed(source):
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, _SMALL)
        for entry in source.iterdir():  # the folder's own mode would come with it
            _show_entry(entry, target / entry.name)
    else:
        bind(source, target)
    if root != Path("/"):
        make_read_only(target)


def _first_closed(root: Path, folder: Path) -> Path | None:
    """The first part of `folder` below `root` that is there and that not everybody may pass through."""
    path = root
    for part in folder.relative_to("/").parts:
        path /= part
        if path.exists() and _is_closed(path):
            return path
    return None


def _is_closed(path: Path) -> bool:
    return not path.stat().st_mode & stat.S_IXOTH


def _show_entry(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir()
        bind(source, target)
    elif source.is_file():
        target.touch()
        bind(source, target)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
