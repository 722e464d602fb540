"""The steps that are the process's own: console, limits, name; and how it ends."""

import os
import resource
import socket
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from runtime.enclave.init import kernel
from runtime.enclave.init.network import bring_up_loopback, verify_ipv6_loopback
from runtime.enclave.init.steps import Attempt

_MOST_OPEN_FILES = Path("/proc/sys/fs/nr_open")
_CONSOLES = ("/dev/console", "/dev/null")


def common_steps() -> list[Attempt]:
    """The steps that every machine takes, whatever it is made of."""
    return [("loopback", bring_up_loopback), ("loopback_ipv6", verify_ipv6_loopback), ("limits", raise_limits)]


def hostname_step(name: str) -> Attempt:
    """The step that names the machine."""
    return "hostname", partial(set_hostname, name)


def open_console() -> bool:
    """Opens what is closed of descriptors 0, 1 and 2, else the next socket would be one; whether any was. Raises OSError."""
    closed = [number for number in range(3) if not _is_open(number)]
    for number in closed:
        _open_as(number)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    return bool(closed)


def raise_limits() -> bool:
    """As many open files as the kernel allows, or as our hard limit does where raising that is denied; no core dumps. Raises OSError."""
    most = int(_MOST_OPEN_FILES.read_text())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, OSError):  # ValueError is what Python makes of EPERM
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return True


def set_hostname(name: str) -> bool:
    """Whether the machine had another name. Raises OSError."""
    if socket.gethostname() == name:
        return False
    socket.sethostname(name)
    return True


def power_off() -> None:
    """Ends the machine. For the kernel's own first process only; raises OSError if the kernel refuses.

    By a restart: an enclave has no firmware to turn it off, and the hypervisor ends it when it resets (AWS's init does the same).
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os.sync()
    kernel.restart()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_as(number: int) -> None:
    """The lowest free descriptor is the one that is wanted, as those below it are open."""
    for path in _CONSOLES:
        with suppress(OSError):
            os.set_inheritable(os.open(path, os.O_RDWR | os.O_NOCTTY), True)
            break
    os.fstat(number)
