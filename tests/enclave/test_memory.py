"""The memory guard over a /proc of the test's own, in mock time; and over the kernel's, where there is only one truth to tell."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.config import Limits
from runtime.enclave.memory import ACCOUNT_INTERVAL, INTERVAL, KILL_SECONDS, SHED_LEAST, MemoryGuard, read_memory
from runtime.enclave.process.accounting import OTHER, RUNTIME, resident_memory
from runtime.enclave.process.oom import set_oom_score
from runtime.protocol.link_values import JournalFields, Level

LIMITS = Limits(memory_warn=85, memory_shed=93)
HELD = 64 << 20
CHILD = f"""
import os, sys, time
if sys.argv[1] == "daemon":
    if os.fork():
        os._exit(0)
    os.setsid()
held = b"x" * {HELD}
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@dataclass(kw_only=True)
class Guarded:
    """A guard, the /proc that it reads, and what it says."""

    proc: Path
    guard: MemoryGuard
    notes: list[tuple[str, JournalFields, Level]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    def use(self, percent: int) -> None:
        (self.proc / "meminfo").write_text(meminfo(percent))

    def kills(self, count: int) -> None:
        (self.proc / "vmstat").write_text(f"nr_free_pages 7\noom_kill {count}\nzone_reclaim_failed 0\n")

    def events(self) -> list[str]:
        return [event for event, _, _ in self.notes]


def meminfo(percent: int) -> str:
    return f"MemTotal: 1048576 kB\nMemAvailable: {1048576 * (100 - percent) // 100} kB\nBuffers: 0 kB\nCached: 20480 kB\nShmem: 10240 kB\n"


@pytest.fixture(name="guarded")
def fixture_guarded(tmp_path: Path) -> Guarded:
    (tmp_path / "meminfo").write_text(meminfo(10))
    (tmp_path / "vmstat").write_text("oom_kill 3\n")
    guard = MemoryGuard(
        tmp_path,
        LIMITS,
        note=lambda event, fields, level: made.notes.append((event, fields, level)),
        hold=lambda reason: made.held.append(reason),  # noqa: PLW0108 - there is no `made` yet
        groups=tmp_path / "groups",
    )
    made = Guarded(proc=tmp_path, guard=guard)
    return made


async def test_memory_that_gets_short_is_warned_of_with_the_numbers_and_then_requests_are_kept_out(
    autojump_clock: MockClock, guarded: Guarded
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guarded.guard.run)
        await trio.sleep(10 * INTERVAL + 0.1)
        assert guarded.events() == []
        guarded.use(86)
        await trio.sleep(INTERVAL)
        guarded.use(94)
        await trio.sleep(INTERVAL)
        assert guarded.held[-1] == "memory_shed"
        guarded.use(50)
        await trio.sleep(SHED_LEAST - INTERVAL - 0.5)
        assert guarded.held[-1] == "memory_shed", "not so soon: what was freed is taken again at once"
        await trio.sleep(INTERVAL + 1)
        assert guarded.held[-1] == ""
        nursery.cancel_scope.cancel()
    assert [(event, level) for event, _, level in guarded.notes] == [
        ("memory.warn", "warning"),
        ("memory.shed", "error"),
        ("memory.good", "info"),
    ]
    fields = dict(guarded.notes[0][1])
    assert fields == {
        "used_percent": 86,
        "total_mib": 1024,
        "available_mib": 143,
        "tmpfs_mib": 10,
        "cache_mib": 10,
        "runtime_mib": 0,
    }


async def test_memory_about_its_threshold_is_warned_of_once_a_minute_at_most(autojump_clock: MockClock, guarded: Guarded) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guarded.guard.run)
        for _ in range(60):
            guarded.use(90)
            await trio.sleep(INTERVAL)
            guarded.use(20)
            await trio.sleep(INTERVAL)
        nursery.cancel_scope.cancel()
    assert 4 <= guarded.events().count("memory.warn") <= 5
    assert guarded.events().count("memory.warn") == guarded.events().count("memory.good")
    assert set(guarded.held) == {""}


async def test_a_warning_that_came_too_soon_is_given_when_its_minute_is_over(autojump_clock: MockClock, guarded: Guarded) -> None:
    for percent in (90, 20, 90):
        guarded.use(percent)
        guarded.guard.check()
    assert guarded.events() == ["memory.warn", "memory.good"]
    await trio.sleep(59)
    guarded.guard.check()
    assert len(guarded.notes) == 2
    await trio.sleep(1)
    guarded.guard.check()
    assert guarded.events() == ["memory.warn", "memory.good", "memory.warn"]


async def test_numbers_that_cannot_be_read_are_told_once_and_change_nothing(autojump_clock: MockClock, guarded: Guarded) -> None:
    guarded.use(95)
    guarded.guard.check()
    for text in ("", "nonsense"):
        (guarded.proc / "meminfo").write_text(text)
        guarded.guard.check()
    (guarded.proc / "meminfo").unlink()
    guarded.guard.check()
    assert guarded.events() == ["memory.shed", "memory.unread"]
    assert guarded.held == ["memory_shed"]
    guarded.use(10)
    await trio.sleep(SHED_LEAST)
    guarded.guard.check()
    assert (guarded.events()[-1], guarded.held[-1]) == ("memory.good", "")


async def test_a_kill_that_the_kernel_has_counted_explains_one_end_within_seconds(
    autojump_clock: MockClock, guarded: Guarded
) -> None:
    guard = guarded.guard
    assert not guard.was_killed(signal.SIGKILL), "three kills were counted before this boot"
    guarded.kills(4)
    assert not guard.was_killed(signal.SIGTERM)
    assert not guard.was_killed(None)
    assert guard.was_killed(signal.SIGKILL)
    assert not guard.was_killed(signal.SIGKILL)
    guarded.kills(5)
    guard.check()
    await trio.sleep(KILL_SECONDS)
    assert not guard.was_killed(signal.SIGKILL)
    assert guarded.events() == ["memory.oom_kill", "memory.oom_kill"]
    assert guard.metrics()["memory_oom_kills"] == 2
    (guarded.proc / "vmstat").unlink()
    guard.check()
    guarded.kills(5)
    assert not guard.was_killed(signal.SIGKILL), "a count that could not be read was no count of 0"


async def test_metrics_tell_of_the_machine_and_of_every_process(autojump_clock: MockClock, guarded: Guarded) -> None:
    assert guarded.guard.metrics() == {"memory_oom_kills": 0}
    guarded.use(50)
    write_stat(guarded.proc, os.getpid(), parent=1, session=7, pages=100)
    write_stat(guarded.proc, 100_000, parent=os.getpid(), session=100_000, pages=1000)
    guarded.guard.customers = lambda: {"app": 100_000}
    guarded.guard.check()
    page = os.sysconf("SC_PAGE_SIZE")
    assert guarded.guard.metrics() == {
        "memory_oom_kills": 0,
        "memory_total_bytes": 1 << 30,
        "memory_available_bytes": 1 << 29,
        "memory_used_percent": 50,
        "memory_tmpfs_bytes": 10 << 20,
        "memory_page_cache_bytes": 10 << 20,
        'memory_resident_bytes{process="runtime"}': 100 * page,
        'memory_resident_bytes{process="app"}': 1000 * page,
    }
    write_stat(guarded.proc, 100_000, parent=os.getpid(), session=100_000, pages=1 << 18)
    guarded.guard.check()
    assert guarded.guard.metrics()['memory_resident_bytes{process="app"}'] == 1000 * page
    await trio.sleep(ACCOUNT_INTERVAL)
    guarded.use(90)
    guarded.guard.check()
    assert guarded.guard.metrics()['memory_resident_bytes{process="app"}'] == page << 18
    assert (guarded.notes[0][1]["largest"], guarded.notes[0][1]["largest_mib"]) == ("app", page >> 2)


def write_stat(proc: Path, pid: int, *, parent: int, session: int, pages: int) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = ["S", str(parent), "1", str(session), *["0"] * 17, str(pages), "0"]
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) {' '.join(fields)}\n")


@pytest.mark.parametrize(
    ("limit", "current", "expected"),
    [("104857600", "99614720", 90), ("max", "99614720", 10), ("104857600", "20971520", 15)],
    ids=["fuller than the machine", "no limit", "emptier than half"],
)
def test_the_limit_of_our_own_control_group_counts_where_it_is_the_nearer_one(
    tmp_path: Path, limit: str, current: str, expected: int
) -> None:
    group = tmp_path / "groups" / "ours"
    group.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("4:memory:/other\n0::/ours\n")
    (tmp_path / "meminfo").write_text(meminfo(10))
    (group / "memory.max").write_text(limit + "\n")
    (group / "memory.current").write_text(current + "\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 5242880\n")
    assert read_memory(tmp_path, tmp_path / "groups").used_percent == expected


def test_this_machines_own_memory_is_read() -> None:
    memory = read_memory(Path("/proc"))
    assert memory.total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.available <= memory.total
    assert 0 <= memory.used_percent <= 100


def test_memory_is_accounted_to_the_session_it_is_held_in_and_to_nobody_outside() -> None:
    before = resident_memory(Path("/proc"), os.getpid(), {})
    assert set(before) <= {RUNTIME, OTHER}
    assert before[RUNTIME] > 1 << 20
    children = []
    try:
        for kind, own_session in (("app", True), ("daemon", True), ("worker", False)):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=own_session
            )
            children.append(child)
            assert child.stdout is not None
            child.stdout.readline()
        held = resident_memory(Path("/proc"), os.getpid(), {"app": children[0].pid})
        assert held["app"] >= HELD
        assert held[RUNTIME] >= before[RUNTIME] // 2 + HELD
        assert resident_memory(Path("/proc"), children[0].pid, {}) == {RUNTIME: held["app"]}
        assert resident_memory(Path("/proc"), 1 << 30, {}) == {}
    finally:
        for child in children:
            child.communicate()


def test_a_score_that_the_kernel_refuses_is_no_error(tmp_path: Path) -> None:
    assert set_oom_score(-1000, tmp_path / "oom_score_adj")
    assert (tmp_path / "oom_score_adj").read_text() == "-1000"
    assert not set_oom_score(-1000, tmp_path / "nowhere" / "oom_score_adj")
