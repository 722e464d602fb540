"""A simulated machine that is odd: its clock is wrong by what the file "clock" of its folder says, and where there is a folder "proc", the
kernel tells of memory there. As runtime.simulator.machine: `python -m tests.scenarios.odd_machine FOLDER`."""

import sys
from pathlib import Path

from runtime.simulator.clock import SimulatedClock
from runtime.simulator.layout import Layout
from runtime.simulator.machine import SimulatedMachine, main


class OddMachine(SimulatedMachine):
    """See above."""

    def __init__(self, layout: Layout, root: Path | None) -> None:
        super().__init__(layout, root)
        clock, proc = layout.base / "clock", layout.base / "proc"
        if clock.exists():
            self.clock = SimulatedClock(float(clock.read_text()))
        if proc.exists():
            self.proc = proc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], OddMachine))
