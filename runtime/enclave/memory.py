"""The memory guard: warns when memory gets short, and lets in no more requests before the kernel has to kill.

Runs in PID 1. An enclave's machine is memory and nothing else: files, tmpfs and processes share it, there is no swap, and what runs out
is taken from a process. So the guard reads /proc, which the kernel writes and no process can, every two seconds.
"""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import trio

from runtime.enclave.config import Limits
from runtime.enclave.memory_levels import Memory, Stage, next_stage, parse_meminfo
from runtime.enclave.process.accounting import RUNTIME, resident_memory
from runtime.enclave.process.oom import FIRST, set_oom_score
from runtime.protocol.link_values import JournalFields, Level

GROUPS = Path("/sys/fs/cgroup")
INTERVAL = 2.0
TIGHT_INTERVAL = 0.5
WARN_INTERVAL = 60.0
SHED_LEAST = 5.0
ACCOUNT_INTERVAL = 30.0
KILL_SECONDS = 5.0
"""For so long the end of a process by KILL is taken for the kernel's doing, after the kernel has counted one."""

_MIB = 1 << 20

Note = Callable[[str, JournalFields, Level], None]


class MemoryGuard:
    """One machine's memory. `hold` is told "memory_shed" while requests must stay out, "" when they need not.

    `proc` is the kernel's /proc. `customers` gives the process ids of the customer's processes by name, set when there are any.
    """

    def __init__(self, proc: Path, limits: Limits, *, note: Note, hold: Callable[[str], None], groups: Path = GROUPS) -> None:
        self._proc = proc
        self._groups = groups
        self._limits = limits
        self._note = note
        self._hold = hold
        self._stage: Stage = "calm"
        self._memory: Memory | None = None
        self._resident: dict[str, int] = {}
        self._accounted = -ACCOUNT_INTERVAL
        self._warned = -WARN_INTERVAL
        self._is_warning_told = False
        self._shed_since = 0.0
        self._is_readable = True
        self._kills = self._read_kills()
        self._kills_at_first = self._kills
        self._unclaimed: list[float] = []
        self.customers: Callable[[], Mapping[str, int]] = dict

    def protect(self) -> None:
        """Takes PID 1 out of the kernel's choice of what to kill, where it may."""
        if not set_oom_score(FIRST):
            self._note("memory.unprotected", {}, "warning")

    async def run(self) -> None:
        """Measures until cancelled, more often when memory is short."""
        while True:
            self.check()
            await trio.sleep(INTERVAL if self._stage == "calm" else TIGHT_INTERVAL)

    def check(self) -> None:
        """One measurement and what follows from it."""
        self._count_kills()
        try:
            self._memory = memory = read_memory(self._proc, self._groups)
        except (OSError, ValueError):
            if self._is_readable:
                self._note("memory.unread", {}, "warning")
            self._is_readable = False
            return
        self._is_readable = True
        now = trio.current_time()
        if now >= self._accounted + ACCOUNT_INTERVAL:
            self._account()
        stage = next_stage(self._stage, memory.used_percent, warn=self._limits.memory_warn, shed=self._limits.memory_shed)
        if self._stage == "shedding" and stage != "shedding" and now < self._shed_since + SHED_LEAST:
            return
        before, self._stage = self._stage, stage
        if stage == "shedding" and before != "shedding":
            self._shed_since = now
            self._account()
            self._note("memory.shed", self._numbers(memory), "error")
            self._is_warning_told = True
        elif stage == "warned" and not self._is_warning_told and now >= self._warned + WARN_INTERVAL:
            self._warned = now
            self._account()
            self._note("memory.warn", self._numbers(memory), "warning")
            self._is_warning_told = True
        elif stage == "calm" and self._is_warning_told:
            self._note("memory.good", self._numbers(memory), "info")
            self._is_warning_told = False
        self._hold("memory_shed" if stage == "shedding" else "")

    def was_killed(self, number: int | None) -> bool:
        """Whether the end of a process just now, by signal `number` or by none, is one that the kernel has counted as its own for want
        of memory. Each counted kill explains one end."""
        self._count_kills()
        if number != signal.SIGKILL or not self._unclaimed:
            return False
        self._unclaimed.pop()
        return True

    def metrics(self) -> Mapping[str, int]:
        """For the parent; what processes hold is as old as `ACCOUNT_INTERVAL` at most."""
        values = {"memory_oom_kills": self._kills - self._kills_at_first}
        if self._memory is not None:
            values |= {
                "memory_total_bytes": self._memory.total,
                "memory_available_bytes": self._memory.available,
                "memory_tmpfs_bytes": self._memory.tmpfs,
                "memory_page_cache_bytes": self._memory.cache,
                "memory_used_percent": self._memory.used_percent,
            }
            if self._memory.limit:
                values |= {"memory_group_limit_bytes": self._memory.limit, "memory_group_charged_bytes": self._memory.charged}
        return values | {f'memory_resident_bytes{{process="{name}"}}': held for name, held in self._resident.items()}

    def _account(self) -> None:
        self._accounted = trio.current_time()
        try:
            self._resident = resident_memory(self._proc, os.getpid(), self.customers())
        except OSError:
            self._resident = {}

    def _numbers(self, memory: Memory) -> dict[str, int | str | bytes]:
        """Whole mebibytes; `largest` is the customer process that holds the most."""
        fields: dict[str, int | str | bytes] = {
            "used_percent": memory.used_percent,
            "total_mib": memory.total // _MIB,
            "available_mib": memory.available // _MIB,
            "tmpfs_mib": memory.tmpfs // _MIB,
            "cache_mib": memory.cache // _MIB,
            "runtime_mib": self._resident.get(RUNTIME, 0) // _MIB,
        }
        if others := {name: held for name, held in self._resident.items() if name != RUNTIME}:
            largest = max(others, key=lambda name: others[name])
            fields |= {"largest": largest, "largest_mib": others[largest] // _MIB}
        return fields

    def _count_kills(self) -> None:
        kills, now = self._read_kills(), trio.current_time()
        more = max(0, kills - self._kills)
        self._unclaimed = [moment for moment in self._unclaimed if moment > now - KILL_SECONDS] + [now] * min(more, 1000)
        if more:
            self._kills = kills
            self._note("memory.oom_kill", {"kills": more}, "error")

    def _read_kills(self) -> int:
        """How many processes the kernel has killed for want of memory since it started, those of control groups included."""
        try:
            lines = dict(line.split(" ", 1) for line in (self._proc / "vmstat").read_text().splitlines())
            return int(lines.get("oom_kill", 0))
        except (OSError, ValueError):
            return 0


def read_memory(proc: Path, groups: Path = GROUPS) -> Memory:
    """What /proc/meminfo says, with the limit of our own control group (cgroup v2) where it has one. Raises OSError or ValueError."""
    memory = parse_meminfo((proc / "meminfo").read_text())
    try:
        own = next(line for line in (proc / "self" / "cgroup").read_text().splitlines() if line.startswith("0::"))
        group = groups / own.removeprefix("0::").lstrip("/")
        limit = int((group / "memory.max").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        charged = int((group / "memory.current").read_text()) - int(statistics["inactive_file"])
    except (OSError, ValueError, KeyError, StopIteration):  # no group, or "max": no limit
        return memory
    return replace(memory, limit=limit, charged=max(0, charged))
