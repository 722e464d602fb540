"""The few system calls of a machine's first process that Python does not have: mount(2), finit_module(2), reboot(2).

Imports nothing but ctypes and os, since it is used before the heartbeat. Every function raises OSError.
"""

import ctypes
import os
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384

_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_RB_AUTOBOOT = 0x01234567

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    check(result, f"mount {kind} on {target}")


def bind(source: Path, target: Path) -> None:
    """Shows `source`, with what is mounted below it, at `target` as well."""
    mount(str(source), target, "", MS_BIND | MS_REC)


def bind_to_itself(target: Path, flags: int) -> None:
    """Makes a folder a mount of its own, so that it can have flags of its own."""
    bind(target, target)
    mount("none", target, "", MS_REMOUNT | MS_BIND | flags)


def load_module(descriptor: int) -> None:
    """finit_module(2), without parameters. Raises OSError, EEXIST when the module is loaded already."""
    number = _FINIT_MODULE[os.uname().machine]
    check(_libc.syscall(ctypes.c_long(number), ctypes.c_int(descriptor), b"", ctypes.c_int(0)), "finit_module")


def restart() -> None:
    """reboot(2), RB_AUTOBOOT. Does not return, unless it raises."""
    check(_libc.reboot(_RB_AUTOBOOT), "reboot")


def check(result: int, what: str) -> None:
    """Raises the OSError of a call of the C library that gave `result`."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
