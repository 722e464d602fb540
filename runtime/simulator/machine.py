"""The simulated machine: the enclave's own code over a simulated NSM and unix sockets in place of vsock.

    python -m runtime.simulator.machine FOLDER

Everything above `Machine` is what an image runs. Where this machine lets it, the program is PID 1 of new pid, mount, network, ipc and uts
namespaces with only a loopback that is down, and the customer's processes get a root of their own; else it is a child subreaper
in the machine's own namespaces, and says so.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import trio

import runtime
from runtime.enclave.init.machine import common_steps, hostname_step
from runtime.enclave.init.mounts import customer_mounts
from runtime.enclave.init.names import names_step
from runtime.enclave.init.network import open_low_ports
from runtime.enclave.init.steps import Attempt, Report, take
from runtime.enclave.platform import ImageConfig, inherit_orphans, read_image_config
from runtime.enclave.run import run
from runtime.net.endpoint import Endpoint
from runtime.simulator.clock import SimulatedClock
from runtime.simulator.customer_root import build_root, show_folders
from runtime.simulator.device import SimulatedDevice
from runtime.simulator.layout import Layout
from runtime.simulator.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    die_with_parent,
    make_private,
    mount,
    unshare,
)

_NAMESPACES = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
_FORWARDED = (signal.SIGTERM, signal.SIGINT)


class SimulatedMachine:
    """What `runtime.enclave.platform.Machine` asks for, out of a simulation's folder. `root` is the customer's, if they have one.

    `ticks` is what the first process counts its deadlines by, trio's own clock by default.
    """

    def __init__(self, layout: Layout, root: Path | None) -> None:
        self.device = SimulatedDevice(str(layout.device))
        self.clock = SimulatedClock()
        self.ticks: trio.abc.Clock | None = None
        self.proc = Path("/proc")
        self._layout = layout
        self._root = root

    def prepare(self) -> Report:
        """See `Machine`: what applies without a kernel of one's own; without a root for the customer there is no namespace either."""
        mounts = [] if self._root is None else customer_mounts(self._root)
        ports: list[Attempt] = [] if self._root is None else [("low_ports", open_low_ports)]
        return take([*mounts, *common_steps(), *ports, ("subreaper", inherit_orphans)])

    def set_name(self, name: str) -> Report:
        """See `Machine`: not that of the machine on which the simulation runs."""
        return Report() if self._root is None else take([hostname_step(name), names_step(self._root)])

    def config_bytes(self) -> bytes:
        """See `Machine`."""
        return (self._layout.enclave / "enclave.toml").read_bytes()

    def image(self) -> ImageConfig:
        """See `Machine`."""
        raw = (self._layout.enclave / "image.json").read_bytes()
        return read_image_config(raw, root=None if self._root is None else str(self._root))

    def parent(self, port: int) -> Endpoint:
        """See `Machine`."""
        return self._layout.parent_port(port)

    def own(self, port: int) -> Endpoint:
        """See `Machine`."""
        return self._layout.enclave_port(port)

    def end(self) -> None:
        """See `Machine`: this one goes with its last process."""


def main(arguments: list[str], make: Callable[[Layout, Path | None], SimulatedMachine] = SimulatedMachine) -> int:
    """Starts the machine in FOLDER and gives its exit status. `make` makes it, of its folder and the customer's root."""
    layout = Layout(Path(arguments[0]))
    try:
        unshare(_NAMESPACES)
    except PermissionError:
        layout.pid.write_text(str(os.getpid()))
        return _run(make(layout, None))
    # Opened first: the two share their mounts, and while the child arranges them this folder may not be there.
    with layout.pid.open("w") as pid:
        child = os.fork()
        if child == 0:
            return _first_process(layout, make)
        pid.write(str(child))
    return _wait(child)


def _first_process(layout: Layout, make: Callable[[Layout, Path | None], SimulatedMachine]) -> int:
    """PID 1 of the new namespaces. It must not outlive the program that started it."""
    die_with_parent(signal.SIGKILL)
    make_private(Path("/"))
    image = make(layout, None).image()
    shown = [Path(folder) for folder in (image.directory, sys.base_prefix)]
    build_root(layout.root, shown=shown, hidden=layout.hidden())
    # In an image our own files are open to the users of our workers; here they may be in somebody's closed home folder.
    show_folders(Path("/"), [Path(runtime.__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix), layout.base])
    mount("proc", Path("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    return _run(make(layout, layout.root))


def _run(machine: SimulatedMachine) -> int:
    return trio.run(run, machine, clock=machine.ticks)


def _wait(child: int) -> int:
    """The status of the first process; signals that end a program go to it."""
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
