"""Linux calls that make a process the first one of a small machine of its own: namespaces(7), mount_setattr(2).

What an image's first process calls itself is in runtime/enclave/init/kernel.py, and named here for those who use both.
"""

import ctypes
import os
from pathlib import Path

from runtime.enclave.init.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, bind, check, mount

__all__ = [
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUTS",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "bind",
    "detach",
    "die_with_parent",
    "make_private",
    "make_read_only",
    "mount",
    "set_namespace",
    "unshare",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_PRIVATE = 1 << 18

_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def unshare(flags: int) -> None:
    """New namespaces for this process, or for its children (pid). Raises OSError."""
    check(_libc.unshare(flags), "unshare")


def set_namespace(descriptor: int) -> None:
    """Moves the calling thread into the namespace behind an open /proc/PID/ns file. Raises OSError."""
    check(_libc.setns(descriptor, 0), "setns")


def die_with_parent(signal_number: int) -> None:
    """This process gets a signal when its parent ends. Raises OSError."""
    check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def detach(target: Path) -> None:
    """Takes away what is mounted at `target`, with all below it; who has it open keeps it. Raises OSError."""
    check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def make_private(target: Path) -> None:
    """What is mounted below `target` from now on stays in this namespace."""
    mount("", target, "", MS_REC | MS_PRIVATE)


def make_read_only(target: Path) -> None:
    """`target` and all mounts below it. Needs Linux 5.12."""
    attributes = _MountAttr(attr_set=_MOUNT_ATTR_RDONLY)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(target),
        _AT_RECURSIVE,
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    check(result, f"read-only {target}")
