"""What processes cost, out of /proc: memory, wake-ups and CPU time. See proc_pid_smaps(5), proc_pid_status(5), proc_pid_task(5)."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.enclave.worker.__main__ import UIDS

_PROC = Path("/proc")
_ROLES = {uid: role for role, uid in UIDS.items()}
_WORKER = b"runtime.enclave.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One process now: `pss` in KiB, None where it may not be read; `wake_ups` (voluntary context switches) and `cpu_ns` of its threads
    since each began. `files` are the KiB of each mapped file that are in memory for it."""

    pid: int
    name: str
    pss: int | None
    private: int
    files: Mapping[str, int]
    wake_ups: Mapping[int, int]
    cpu_ns: Mapping[int, int]


def footprints(root: int) -> list[Footprint]:
    """Of a process and all below it, the parents first."""
    return [found for pid in _tree(root) if (found := _footprint(pid, root)) is not None]


def alone(processes: list[Footprint]) -> int:
    """KiB that these would need if nobody else on this machine used the same files: what is private, and each file's pages once."""
    files: dict[str, int] = {}
    for process in processes:
        for name, size in process.files.items():
            files[name] = max(size, files.get(name, 0))
    return sum(process.private for process in processes) + sum(files.values())


def grown(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """By how much the threads' counts have grown; one that is new counts from its beginning, one that has ended not at all."""
    return sum(count - before.get(thread, 0) for thread, count in after.items())


def _tree(root: int) -> Iterator[int]:
    yield root
    with suppress(OSError):
        for thread in sorted((_PROC / str(root) / "task").iterdir()):
            for child in (thread / "children").read_text().split():
                yield from _tree(int(child))


def _footprint(pid: int, root: int) -> Footprint | None:
    base = _PROC / str(pid)
    try:
        wake_ups, cpu = {}, {}
        for thread in (base / "task").iterdir():
            lines = (thread / "status").read_text().splitlines()
            wake_ups[int(thread.name)] = next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
            cpu[int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
        name = _name(base, pid, root)
    except (OSError, StopIteration):
        return None  # it has just ended
    pss, private, files = _memory(base)
    return Footprint(pid=pid, name=name, pss=pss, private=private, files=files, wake_ups=wake_ups, cpu_ns=cpu)


def _memory(base: Path) -> tuple[int | None, int, dict[str, int]]:
    """(PSS, its part that is of no file, resident by file)."""
    files: dict[str, int] = {}
    try:
        sums = dict(line.split(":", 1) for line in (base / "smaps_rollup").read_text().splitlines()[1:])
        mappings = (base / "smaps").read_text()
    except OSError:
        return None, 0, {}
    pss, of_files = (int(sums[name].split()[0]) for name in ("Pss", "Pss_File"))
    file = ""
    for line in mappings.splitlines():
        name, _, rest = line.partition(":")
        if "-" in name and " " in name:  # "start-end perms offset dev inode path": a new mapping
            words = line.split(maxsplit=5)
            file = words[5] if len(words) > 5 and words[4] != "0" else ""
        elif file and name in ("Rss", "Anonymous"):  # pages of a file that were written to are counted above
            size = int(rest.split()[0])
            files[file] = files.get(file, 0) + (size if name == "Rss" else -size)
    return pss, pss - of_files, files


def _name(base: Path, pid: int, root: int) -> str:
    command = (base / "cmdline").read_bytes()
    if pid == root:
        return "PID 1"
    if _WORKER not in command:
        return os.fsdecode(command.split(b"\0")[0].rpartition(b"/")[2])
    uid = int(next(line.split()[1] for line in (base / "status").read_text().splitlines() if line.startswith("Uid:")))
    return _ROLES.get(uid, "fork server" if uid == 0 else "worker")
