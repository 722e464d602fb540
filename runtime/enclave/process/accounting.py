"""How much memory the runtime and each customer process hold, by /proc/PID/stat (proc_pid_stat(5)). One file for each process, read as
numbers: cheap enough for now and then, and wrong where pages are shared, which count for everyone who has them."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RUNTIME = "runtime"
OTHER = "other"
"""What a customer's process has started in a session of its own."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the table; `resident` in bytes."""

    pid: int
    parent: int
    session: int
    resident: int


def resident_memory(proc: Path, first: int, customers: Mapping[str, int]) -> dict[str, int]:
    """Bytes by name, of all processes below `first` and of itself. `customers` are the leaders of the customer's sessions, by name.

    What is in the session of `first` is the runtime's: its workers stay there.
    """
    table = {process.pid: process for process in _processes(proc)}
    if first not in table:
        return {}
    names = {pid: name for name, pid in customers.items()} | {table[first].session: RUNTIME}
    held: defaultdict[str, int] = defaultdict(int)
    for process in table.values():
        if _is_below(process, first, table):
            held[names.get(process.session, OTHER)] += process.resident
    return dict(held)


def _is_below(process: Process, first: int, table: Mapping[int, Process]) -> bool:
    """By the chain of parents; the table was not read at one moment, so a chain may end nowhere or in itself."""
    seen: set[int] = set()
    while process.pid != first:
        parent = table.get(process.parent)
        if parent is None or parent.pid in seen:
            return False
        seen.add(parent.pid)
        process = parent
    return True


def _processes(proc: Path) -> Iterator[Process]:
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):  # it has ended
                # The program's name, in parentheses, may hold anything; what comes behind the last one may not.
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                yield Process(int(entry.name), int(fields[1]), int(fields[3]), int(fields[21]) * page)
