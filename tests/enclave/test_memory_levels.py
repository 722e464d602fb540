"""What /proc/meminfo says, and the stages of the guard, for every text and every course of events."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave.memory_levels import HYSTERESIS, Memory, Stage, next_stage, parse_meminfo

MEMINFO = """MemTotal:        1000000 kB
MemFree:          100000 kB
MemAvailable:     250000 kB
Buffers:            5000 kB
Cached:           300000 kB
SwapCached:            0 kB
Shmem:            120000 kB
HugePages_Total:       0
"""

percents = st.integers(0, 100)


def test_what_is_not_available_is_used_and_tmpfs_is_no_page_cache() -> None:
    memory = parse_meminfo(MEMINFO)
    assert memory == Memory(total=1_024_000_000, available=256_000_000, tmpfs=122_880_000, cache=189_440_000)
    assert memory.used_percent == 75


@pytest.mark.parametrize(
    "text",
    [
        "",
        MEMINFO.replace("MemAvailable", "MemUnavailable"),
        MEMINFO.replace("Shmem:", "Shmem"),
        MEMINFO.replace("1000000", "0"),
        MEMINFO.replace("250000 kB", "many kB"),
        MEMINFO.replace("250000 kB", "-1 kB"),
    ],
    ids=["empty", "a line missing", "no colon", "no memory", "no number", "negative"],
)
def test_a_text_without_the_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_meminfo(text)


@given(st.text())
def test_any_text_is_memory_or_the_one_error(text: str) -> None:
    with suppress(ValueError):
        parse_meminfo(text)


@given(st.integers(1, 1 << 50), st.integers(0, 1 << 51), st.integers(0, 1 << 50), st.integers(0, 1 << 51))
def test_use_is_a_percentage_of_whichever_is_the_fuller(total: int, available: int, limit: int, charged: int) -> None:
    memory = Memory(total=total, available=available, tmpfs=0, cache=0, limit=limit, charged=charged)
    assert 0 <= memory.used_percent <= 100
    without = Memory(total=total, available=available, tmpfs=0, cache=0)
    assert memory.used_percent >= without.used_percent


@given(st.lists(percents), percents, percents)
def test_no_course_of_events_sheds_below_its_threshold_or_lets_in_above_it(course: list[int], one: int, other: int) -> None:
    warn, shed = sorted((one, other))
    stage: Stage = "calm"
    for percent in course:
        before, stage = stage, next_stage(stage, percent, warn=warn, shed=shed)
        if percent >= shed:
            assert stage == "shedding"
        if stage == "shedding" and percent < shed:
            assert before == "shedding"
            assert percent > shed - HYSTERESIS
        if percent >= warn:
            assert stage != "calm"
        if percent <= warn - HYSTERESIS:
            assert stage == "calm"


def test_a_threshold_is_left_three_points_below_it() -> None:
    stage: Stage = "calm"
    seen = []
    for percent in (84, 85, 92, 93, 91, 90, 92, 83, 82, 84, 100, 82):
        stage = next_stage(stage, percent, warn=85, shed=93)
        seen.append(stage)
    assert seen == [
        "calm", "warned", "warned", "shedding", "shedding", "warned", "warned", "warned", "calm", "calm", "shedding", "calm",
    ]  # fmt: skip
