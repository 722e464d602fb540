"""Whether guests run by the processor itself here. That /dev/kvm opens proves nothing: where machines are nested, guests die in it.

So the image's own kernel is tried: with no ramdisk it panics, and a machine that restarts on panic ends within a second or two.
"""

import os
from pathlib import Path
from subprocess import DEVNULL  # noqa: TID251 - a constant; the process is trio's

import trio

from runtime.simulator.vm.qemu import Qemu

KVM = Path("/dev/kvm")
_SECONDS = 10.0


async def works_with_kvm(qemu: Qemu, kernel: Path) -> bool:
    """Whether this kernel comes as far as its panic under KVM."""
    if not os.access(KVM, os.R_OK | os.W_OK):
        return False
    command = [
        *(*qemu.command, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "none"),
        # A guest that the processor cannot run is stopped, and its machine stays; this makes it end.
        *("-M", "q35,graphics=off", "-accel", "kvm", "-cpu", "host", "-m", "256M", "-action", "panic=shutdown"),
        *("-kernel", str(kernel), "-append", "panic=-1 reboot=t"),
    ]
    with trio.move_on_after(_SECONDS):
        done = await trio.run_process(
            command, stdin=DEVNULL, capture_stdout=True, stderr=DEVNULL, check=False, env=dict(qemu.environment)
        )
        return done.returncode == 0
    return False
