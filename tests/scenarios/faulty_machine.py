"""A simulated machine in which something is broken, as `broken.json` of its folder says (`Broken`).

As runtime.simulator.machine: `python -m tests.scenarios.faulty_machine FOLDER`.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import trio

from runtime.enclave.init.heartbeat import send_heartbeat
from runtime.enclave.init.machine import common_steps
from runtime.enclave.init.modules import load_modules
from runtime.enclave.init.mounts import customer_mounts
from runtime.enclave.init.network import open_low_ports
from runtime.enclave.init.ramdisk import check_ramdisks
from runtime.enclave.init.steps import STEPS, Report, take
from runtime.enclave.platform import ImageConfig, inherit_orphans, read_image_config
from runtime.simulator.clock import SimulatedClock
from runtime.simulator.layout import Layout
from runtime.simulator.machine import main
from tests.scenarios.odd_machine import OddMachine

JUMP = signal.SIGRTMIN
JUMP_SECONDS = 67.0
"""More than what is done every minute, with its jitter, can be apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What is broken: the first steps of these names, of which the heartbeat has so many seconds; the image's config, which has this text
    or is missing; the clock, which is ahead by so many seconds, or is wrong by a year and cannot be set; a loopback port that is taken."""

    steps: tuple[str, ...] = ()
    heartbeat_seconds: float = 30.0
    image: str | None = None
    is_image_missing: bool = False
    clock_offset: float = 0.0
    is_clock_stuck: bool = False
    taken_port: int | None = None

    def write(self, base: Path) -> None:
        """Into the folder of a machine."""
        (base / "broken.json").write_text(json.dumps(asdict(self)))


_OF_THE_NAME = ("hostname", "root_names")


class FaultyMachine(OddMachine):
    """See above."""

    def __init__(self, layout: Layout, root: Path | None) -> None:
        super().__init__(layout, root)
        file = layout.base / "broken.json"
        self.broken = Broken(**json.loads(file.read_text())) if file.exists() else Broken()
        self.ticks = JumpingClock()
        self._is_prepared = False
        self._taken = socket.socket()
        self.clock = StuckClock(-365 * 86400.0) if self.broken.is_clock_stuck else SimulatedClock(self.broken.clock_offset)

    def prepare(self) -> Report:
        """The steps of a simulated machine; those that are broken are the real ones over something broken, or fail in the kernel."""
        self._is_prepared = True
        steps = dict([] if self._root is None else customer_mounts(self._root)) | dict(common_steps())
        steps |= {"subreaper": inherit_orphans} | ({} if self._root is None else {"low_ports": open_low_ports})
        steps |= {name: self._broken_step(name) for name in self.broken.steps if name not in _OF_THE_NAME}
        report = take([(step.name, steps[step.name]) for step in STEPS if step.name in steps])
        if self.broken.taken_port is not None and report.fatal is None:
            self._taken.bind(("127.0.0.1", self.broken.taken_port))
            self._taken.listen()
        return report

    def set_name(self, name: str) -> Report:
        """As above."""
        refused = [(step, _refused) for step in _OF_THE_NAME if step in self.broken.steps]
        return take(refused) if refused else super().set_name(name)

    def image(self) -> ImageConfig:
        """What the boot reads; the simulator has read the true one before, to build the customer's root."""
        if self._is_prepared and self.broken.is_image_missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "image.json")
        if self._is_prepared and self.broken.image is not None:
            return read_image_config(self.broken.image.encode(), root=None if self._root is None else str(self._root))
        return super().image()

    def _broken_step(self, name: str) -> Callable[[], bool]:
        base = self._layout.base
        match name:
            case "heartbeat":
                return partial(send_heartbeat, self._connect_heartbeat, seconds=self.broken.heartbeat_seconds)
            case "ramdisk":
                return partial(check_ramdisks, (base / "ramdisk",))
            case "modules":
                return partial(load_modules, base / "modules")
            case _:
                return _refused

    def _connect_heartbeat(self, seconds: float) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(seconds)
        try:
            stream.connect(str(self._layout.sockets / "heartbeat.sock"))
        except OSError:
            stream.close()
            raise
        return stream


class StuckClock(SimulatedClock):
    """A clock that the kernel does not let anybody set."""

    def step(self, seconds: float) -> None:
        _refused()


class JumpingClock(trio.abc.Clock):
    """Time that goes forward by more than a minute at each signal `JUMP`: what waits for less has waited long enough."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def start_clock(self) -> None:
        signal.signal(JUMP, self._jump)

    def current_time(self) -> float:
        return time.perf_counter() + self._ahead

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.current_time()

    def _jump(self, _number: int, _frame: FrameType | None) -> None:
        self._ahead += JUMP_SECONDS


def _refused() -> bool:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], FaultyMachine))
