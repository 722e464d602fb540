"""The first milliseconds of the first process, before anything big is imported: nothing but Python's own modules is loaded here.

There are two ways to be first, and the process finds out itself. *The kernel's init*: started from our own ramdisk, it owes the machine
everything. *The child of another init*, AWS's: file systems, module and heartbeat are there, and what is there is left alone.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.enclave.init.heartbeat import Connect, connect_parent, send_heartbeat
from runtime.enclave.init.machine import open_console
from runtime.enclave.init.modules import load_modules
from runtime.enclave.init.mounts import early_mounts, is_proc_mounted
from runtime.enclave.init.ramdisk import check_ramdisks
from runtime.enclave.init.steps import Attempt, Report, take

INIT = Path("/init")
"""What the kernel starts from an initial ramdisk. It is gone from sight when AWS's init has moved into the image's root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """What was found and done. `is_kernels_init`: this process is the kernel's own, and ends the machine when it ends."""

    is_kernels_init: bool
    report: Report


def begin(connect: Connect = connect_parent) -> Early:
    """Takes the steps that come before everything else; call it once, first thing. Raises nothing: failures are in the report."""
    first = is_kernels_init()
    forget_words()
    steps: list[Attempt] = [*early_mounts(), ("console", open_console)]
    if first:
        steps += [("modules", load_modules), ("heartbeat", partial(send_heartbeat, connect))]
    steps.append(("ramdisk", check_ramdisks))
    return Early(is_kernels_init=first, report=take(steps))


def is_kernels_init() -> bool:
    """PID 1 alone does not prove it: every pid namespace has one."""
    return os.getpid() == 1 and (not is_proc_mounted() or INIT.exists())


def forget_words() -> None:
    """Drops arguments and environment. The kernel hands its first process every word of its command line that it did not understand.

    No word means anything to the runtime, and none may reach a library that would take it for a setting (OPENSSL_CONF, SSLKEYLOGFILE).
    """
    del sys.argv[1:]
    os.environ.clear()  # noqa: TID251 - nothing is read: it is emptied, so that nobody else reads it either
