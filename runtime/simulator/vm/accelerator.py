"""Whether guests run by the processor itself here. That /dev/kvm opens proves nothing: where machines are nested, guests die in it.

So the image's own kernel is tried: with no ramdisk it panics, and a machine that restarts on panic ends within a second or two.
"""

import os
from pathlib import Path
from subprocess import DEVNULL, PIPE  # noqa: TID251 - constants; the process is trio's

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
        *("-M", "q35,graphics=off", "-accel", "kvm", "-cpu", "host", "-m", "256M"),
        *("-kernel", str(kernel), "-append", "panic=-1 reboot=t"),
    ]
    process = await trio.lowlevel.open_process(command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=dict(qemu.environment))
    assert process.stderr is not None
    try:
        with trio.move_on_after(_SECONDS):
            # A guest that the processor cannot run is stopped with a word about it, and its machine stays.
            said = await process.stderr.receive_some()
            return not said and await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()
    return False
