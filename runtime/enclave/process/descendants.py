"""Who is below a process, by /proc: proc_pid_stat(5)."""

from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path


def descendants(root: int, *, spared: Collection[int] = ()) -> set[int]:
    """The processes below `root`, zombies included, but for those of `spared` and what is below them. Raises OSError."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                children[_parent(entry)].append(int(entry.name))
    found: set[int] = set()
    unseen = [root]
    while unseen:
        below = [pid for pid in children[unseen.pop()] if pid not in spared]
        found.update(below)
        unseen += below
    return found


def _parent(process: Path) -> int:
    """The name of a program, in parentheses, may hold anything; what comes behind the last one may not."""
    fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1])
