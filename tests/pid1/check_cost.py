"""What a first process costs: to start, while nothing happens, and in memory."""

import os
import time
from pathlib import Path

from tests.pid1.programs import REPORT
from tests.pid1.registry import check
from tests.pid1.runs import Run, best, python
from tests.pid1.subjects import Subject

_IDLE_SECONDS = 4.0
_WAKE_UPS_PER_SECOND = 2
_TICKS = 1
_START_SECONDS = 0.5


def _processes(run: Run) -> set[int]:
    """The first process and, where there is one, the launcher."""
    return {run.target, run.supervisor}


def _wake_ups(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "voluntary_ctxt_switches" in line)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@check("the command runs within 500 ms", one_by_one=True)
def start(subject: Subject) -> str:
    """From the start of the first process to the command's first word."""

    def measure() -> float:
        with Run(subject, ["sh", "-c", "echo here"], is_measured=True) as run:
            run.lines.expect("here")
            lasted = time.monotonic() - run.began
            assert run.wait() == 0
            return lasted

    return f"{best(measure, within=_START_SECONDS) * 1000:.0f} ms"


@check("idle: at most 2 wake-ups a second, no CPU")
def idle(subject: Subject) -> str:
    """Waiting is the check. Before it, the first process has had time to load all that it will use."""
    with Run(subject, python(REPORT + "say('ready')\nos.read(0, 1)"), stdin=(pipe := os.pipe())[0], is_measured=True) as run:
        try:
            run.lines.expect("ready")
            time.sleep(1)
            processes = _processes(run)
            wake_ups, ticks = sum(map(_wake_ups, processes)), sum(map(_ticks, processes))
            time.sleep(_IDLE_SECONDS)
            rate = (sum(map(_wake_ups, processes)) - wake_ups) / _IDLE_SECONDS
            assert rate <= _WAKE_UPS_PER_SECOND
            assert sum(map(_ticks, processes)) - ticks <= _TICKS
            return f"{rate:.1f}/s"
        finally:
            for descriptor in pipe:
                os.close(descriptor)


@check("memory (PSS, the launcher's included) under 64 MiB")
def memory(subject: Subject) -> str:
    with Run(subject, python(REPORT + "say('ready')\nos.read(0, 1)"), stdin=(pipe := os.pipe())[0], is_measured=True) as run:
        try:
            run.lines.expect("ready")
            time.sleep(1)
            kib = sum(map(_pss, _processes(run)))
            assert kib < 64 * 1024
            return f"{kib / 1024:.1f} MiB"
        finally:
            for descriptor in pipe:
                os.close(descriptor)
