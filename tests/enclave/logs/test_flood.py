"""What a process that writes without end costs: measured in a process of its own, around a real writer (flood.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.enclave.logs.output import TOLD_SECONDS
from tests.enclave.logs.flood import WARM, Cost

ROOT = Path(__file__).parents[3]
PIECE = 8192

GROWN_KIB_MAX = 16 * 1024
TURN_MAX = 0.25
"""Seconds of CPU. It is 1.5 ms where there are no line ends and 12 ms where there is nothing else."""


def flooded(way: str, mebibytes: int) -> Cost:
    command = [sys.executable, "-m", "tests.enclave.logs.flood", way, str(mebibytes)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    return Cost(**json.loads(finished.stdout))


@pytest.mark.parametrize(
    ("way", "mebibytes", "written"),
    [("zeros", 1024, 1024 * (1 << 20) // PIECE), ("newlines", 64, 64 << 20)],
    ids=["zeros", "newlines"],
)
def test_a_writer_without_end_costs_bounded_memory_and_turns_and_every_line_is_counted(
    way: str, mebibytes: int, written: int
) -> None:
    cost = flooded(way, mebibytes)
    assert cost.grown_kib < GROWN_KIB_MAX
    assert cost.turn < TURN_MAX
    assert cost.ticks == cost.journalled > 0
    assert 1 <= cost.limited <= 1 + cost.seconds / TOLD_SECONDS
    assert cost.lines + cost.dropped == written + WARM


def test_a_parent_that_takes_nothing_stops_no_writer() -> None:
    cost = flooded("stuck", 256)
    assert (cost.lines, cost.ticks) == (0, 0)
    assert cost.journalled > 0
    assert cost.grown_kib < GROWN_KIB_MAX
    assert cost.turn < TURN_MAX
