"""What is measured as a subject, and how one is started."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import cpu_ns, settle
from tests.bench.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A subject that serves on `port` of 127.0.0.1. `pids` are the processes whose CPU and memory are its own.

    `beside` are others that work for it and are counted apart. `logs` grow while it works.
    """

    name: str
    port: int
    pids: tuple[int, ...]
    beside: tuple[int, ...] = ()
    logs: tuple[Path, ...] = ()

    def rest(self) -> None:
        """Waits until it is idle, and empties its logs."""
        settle(self.pids + self.beside)
        for log in self.logs:
            with log.open("r+b") as file:
                file.truncate(0)

    def cpu_ns(self) -> int:
        """Of its own processes, when they have done all that they had to."""
        settle(self.pids)
        return cpu_ns(self.pids)

    def beside_ns(self) -> int:
        """Of the others."""
        settle(self.beside)
        return cpu_ns(self.beside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to be measured. `needs` is the program without which it cannot be, and `package` the Debian package that has it."""

    name: str
    start: Callable[[Site], AbstractContextManager[Running]]
    needs: str = ""
    package: str = ""
