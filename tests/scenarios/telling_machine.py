"""A simulated machine that leaves behind which modules its first process had at its end, in "modules.json" of its folder. As
runtime.simulator.machine: `python -m tests.scenarios.telling_machine FOLDER`."""

import json
import sys
from pathlib import Path

from runtime.simulator.layout import Layout
from runtime.simulator.machine import SimulatedMachine, main


class TellingMachine(SimulatedMachine):
    """See above."""

    def __init__(self, layout: Layout, root: Path | None) -> None:
        super().__init__(layout, root)
        self._told = layout.base / "modules.json"

    def end(self) -> None:
        """See `Machine`."""
        self._told.write_text(json.dumps(list(sys.modules)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], TellingMachine))
