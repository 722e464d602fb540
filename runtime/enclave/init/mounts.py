"""The file systems of the machine and of the customer's root. What is mounted already is left alone.

The customer's processes see their own root only: a /proc in which each user finds their own processes, a /sys and a /proc/sys that they
cannot write, a /dev without the security module. Device nodes that their image brings do not work anywhere in it.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.enclave.init.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, bind, bind_to_itself, mount
from runtime.enclave.init.steps import Attempt

NSM = Path("/dev/nsm")

_MOUNTS = Path("/proc/self/mountinfo")
_STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC
_TERMINALS = "mode=0620,gid=5,ptmxmode=0666"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_CONTROLS = (
    "sys",
    "sysrq-trigger",
    "irq",
    "bus",
)  # what of /proc governs the whole machine: its files belong to uid 0, capable or not
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx"))


@dataclass(frozen=True, slots=True)
class _Mount:
    target: str
    kind: str
    flags: int
    data: str = ""


# What is in a tmpfs is memory that nobody gets back by killing a process, and each may take half of the machine unless it is bounded.
# Full, all of them together leave some of it.
_OWN = {
    "proc": _Mount("proc", "proc", _STRICT),
    "dev": _Mount("dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"),
    "sys": _Mount("sys", "sysfs", _STRICT),
    "pts": _Mount("dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, _TERMINALS),
    "shm": _Mount("dev/shm", "tmpfs", _STRICT, "mode=1777,size=5%"),
    "run": _Mount("run", "tmpfs", _STRICT, "mode=0755,size=5%"),
    "tmp": _Mount("tmp", "tmpfs", _STRICT, "mode=1777,size=5%"),
    "cgroup": _Mount("sys/fs/cgroup", "cgroup2", _STRICT),
}

_CUSTOMER = {
    # hidepid=2 (proc(5)): nobody but root sees the processes of another user. Programs may be run from /run and /tmp, as elsewhere.
    "root_proc": _Mount("proc", "proc", _STRICT, "hidepid=2"),
    "root_sys": _Mount("sys", "sysfs", _STRICT | MS_RDONLY),
    "root_dev": _Mount("dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k"),
    "root_pts": _Mount("dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, _TERMINALS),
    "root_shm": _Mount("dev/shm", "tmpfs", _STRICT, "mode=1777,size=25%"),
    "root_run": _Mount("run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=10%"),
    "root_tmp": _Mount("tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=40%"),
}


def early_mounts() -> list[Attempt]:
    """The steps without which nothing can be known or said."""
    return [(name, partial(_make, Path("/"), _OWN[name])) for name in ("proc", "dev")]


def own_mounts() -> list[Attempt]:
    """The steps of the other file systems of the machine."""
    return [(name, partial(_make, Path("/"), wanted)) for name, wanted in _OWN.items() if name not in ("proc", "dev")]


def customer_mounts(root: Path) -> list[Attempt]:
    """The steps that make the customer's root ready to be entered."""
    special: dict[str, Callable[[], bool]] = {
        "root_proc": partial(_make_processes, root),
        "root_dev": partial(_make_devices, root),
        "root_run": partial(_make_unless_brought, root, _CUSTOMER["root_run"]),
        "root_tmp": partial(_make_unless_brought, root, _CUSTOMER["root_tmp"]),
    }
    first: Attempt = ("root", partial(_close_root, root))
    return [first, *((name, special.get(name) or partial(_make, root, wanted)) for name, wanted in _CUSTOMER.items())]


def close_device(device: Path = NSM) -> bool:
    """The security module for root alone: its driver makes the node for everybody. Whether there is one. Raises OSError."""
    if not device.exists():
        return False  # the boot fails without one, with a reason that says so
    os.chown(device, 0, 0)
    device.chmod(0o600)
    return True


def is_proc_mounted() -> bool:
    """False in a process that the kernel started as its first, until it has mounted it."""
    return _MOUNTS.exists()


def is_mounted(target: Path) -> bool:
    """Whether something is mounted right there, binds included. Field 5 of proc_pid_mountinfo(5). Raises OSError without /proc."""
    path = os.fsencode(os.path.realpath(target))
    return any(_unescape(line.split(b" ")[4]) == path for line in _MOUNTS.read_bytes().splitlines())


def _make(root: Path, wanted: _Mount) -> bool:
    target = root / wanted.target
    if wanted.target == "proc" and root == Path("/"):
        if is_proc_mounted():
            return False
    elif not _is_free(target):
        return False
    target.mkdir(mode=0o755, exist_ok=True)
    mount(wanted.kind, target, wanted.kind, wanted.flags, wanted.data)
    return True


def _make_unless_brought(root: Path, wanted: _Mount) -> bool:
    """An image that has something there keeps it, under the same flags."""
    target = root / wanted.target
    if not (target.is_dir() and any(target.iterdir())):
        return _make(root, wanted)
    if not _is_free(target):
        return False
    bind_to_itself(target, wanted.flags)
    return True


def _close_root(root: Path) -> bool:
    if not _is_free(root):
        return False
    bind_to_itself(root, MS_NOSUID | MS_NODEV)
    return True


def _make_processes(root: Path) -> bool:
    """A process with uid 0 could set what holds for the machine, such as a program that the kernel runs for a core dump."""
    if not _make(root, _CUSTOMER["root_proc"]):
        return False
    for name in _CONTROLS:
        if (control := root / "proc" / name).exists():
            bind_to_itself(control, _STRICT | MS_RDONLY)
    return True


def _make_devices(root: Path) -> bool:
    """Whatever the image has in /dev is covered."""
    if not _make(root, _CUSTOMER["root_dev"]):
        return False
    folder = root / "dev"
    for name in _DEVICES:
        (folder / name).touch()
        bind(Path("/dev") / name, folder / name)
    for name, link in _LINKS:
        (folder / name).symlink_to(link)
    return True


def _is_free(target: Path) -> bool:
    """Whether nothing is mounted there. A symbolic link, which would lead out of the customer's root, is refused with ELOOP."""
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(target))
    return not is_mounted(target)


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
