"""The customer's root file system in a simulation: this machine's own, read-only, without the simulator's state.

A real image brings its root under /rootfs; here it is a view of the machine, so that any command of this machine can be the customer's
process under its own user. What that user could not even pass through (a home folder of mode 0700 with the interpreter or the program
in it) is covered by an empty folder in which only the needed parts are shown.
"""

import stat
from collections.abc import Iterable
from pathlib import Path

from runtime.simulator.namespaces import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, make_private, make_read_only, mount

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SMALL = "size=1m,mode=0755"


def build_root(root: Path, *, shown: Iterable[Path], hidden: Iterable[Path]) -> None:
    """Mounts the view on the empty folder `root`. Call it in a mount namespace of your own. Raises OSError where the machine forbids it.

    `shown` are folders that every user must be able to reach, `hidden` folders of which nothing may be seen.
    """
    bind(Path("/"), root)
    make_private(root)
    make_read_only(root)
    for folder in shown:
        _show(root, folder)
    for folder in hidden:
        mount("none", _below(root, folder), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=0000")
    mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _make_devices(root / "dev")


def _show(root: Path, folder: Path) -> None:
    """Makes `folder` reachable: covers its first ancestor that is not open to everybody, and binds the folder into the cover."""
    closed = next((path for path in reversed([folder, *folder.parents]) if not _is_open(_below(root, path))), None)
    if closed is None:
        return
    if closed != folder:
        mount("tmpfs", _below(root, closed), "tmpfs", MS_NOSUID | MS_NODEV, _SMALL)
    target = _below(root, folder)
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    bind(folder, target)
    make_read_only(target)


def _is_open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IXOTH)
    except FileNotFoundError:
        return False


def _make_devices(target: Path) -> None:
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NOEXEC, _SMALL)
    for name in _DEVICES:
        (target / name).touch()
        bind(Path("/dev") / name, target / name)
    for name, link in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (target / name).symlink_to(link)
    (target / "shm").mkdir()
    mount("tmpfs", target / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
