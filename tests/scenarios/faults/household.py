"""Every process of a running machine, as this machine sees them, and whether any is left of it."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Member:
    """One process: its number here, and when it started, for numbers are used again."""

    pid: int
    started: int


@dataclass(slots=True)
class Household:
    """The processes of the machine whose first process is `first`, by its pid namespace; by descent where it has none of its own.

    Made while that process runs.
    """

    first: int
    namespace: int = field(init=False)
    seen: set[Member] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.namespace = _namespace(self.first)
        self.look()

    @property
    def is_isolated(self) -> bool:
        """Whether it has a namespace of its own."""
        return self.namespace != _namespace(os.getpid())

    def look(self) -> set[Member]:
        """Who is there now; they are remembered."""
        table = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
        if self.is_isolated:
            here = {pid for pid in table if _namespace(pid, default=0) == self.namespace}
        else:
            here = _descendants(self.first, {pid: parent for pid, (_, parent, _) in table.items()})
        members = {Member(pid, table[pid][2]) for pid in here}
        self.seen |= members
        return members

    def left(self) -> set[Member]:
        """Who is there of all that were ever seen, and of all that can be found; zombies too."""
        return self.look() | {each for each in self.seen if (stat := _stat(each.pid)) is not None and stat[2] == each.started}

    def zombies(self) -> set[Member]:
        """Who has ended and was not reaped."""
        return {each for each in self.look() if (stat := _stat(each.pid)) is not None and stat[0] == "Z"}

    def numbered(self, inside: object) -> list[int]:
        """Who has this number inside the machine."""
        return [each.pid for each in self.look() if _own_number(each.pid) == inside]

    def workers(self) -> list[int]:
        """The fork server and the workers, children of the first process all, in the order in which they were started."""
        found = sorted(self.look(), key=lambda each: each.started)
        children = [each.pid for each in found if (stat := _stat(each.pid)) is not None and stat[1] == self.first]
        return [pid for pid in children if b"runtime.enclave.worker" in _command(pid)]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(state, parent, ticks at which it started) of proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1]), int(fields[19])


def _own_number(pid: int) -> int | None:
    """In its own pid namespace (proc_pid_status(5), NSpid)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), None)


def _namespace(pid: int, *, default: int | None = None) -> int:
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        if default is None:
            raise
        return default


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _descendants(first: int, parents: dict[int, int]) -> set[int]:
    found = {first} & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found
