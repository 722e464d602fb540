"""A simulated machine whose customer finds one mebibyte in /dev/shm, and no room for another file in /run. As
runtime.simulator.machine: `python -m tests.scenarios.small_machine FOLDER`."""

import sys

from runtime.enclave.init.steps import Report
from runtime.simulator.machine import SimulatedMachine, main
from runtime.simulator.namespaces import mount

SMALL = "size=1m,mode=1777"
FULL = "nr_inodes=2,mode=1777"
"""Its own folder, and one file more."""


class SmallMachine(SimulatedMachine):
    """See above. Where it shares the file systems of the machine it runs on, these stay as they are."""

    def prepare(self) -> Report:
        """See `Machine`."""
        report = super().prepare()
        if self._root is not None:
            for name, data in (("dev/shm", SMALL), ("run", FULL)):
                mount("tmpfs", self._root / name, "tmpfs", 0, data)
            (self._root / "run" / "taken").touch()
        return report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], SmallMachine))
