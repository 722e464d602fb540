"""When and how often a process runs again, over any course of time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave.process.restarts import HEALTHY_SECONDS, PAUSE_LEAST, PAUSE_MOST, Restarts

times = st.floats(0, 1000, allow_nan=False)
ends = st.lists(st.tuples(times, times, st.floats(0, 1)), max_size=60)
"""(seconds since the end before, healthy seconds, jitter) of each end of a run."""


@given(ends, st.integers(0, 8), st.floats(0.1, 3600))
def test_no_window_has_more_restarts_than_the_budget(course: list[tuple[float, float, float]], most: int, window: float) -> None:
    restarts = Restarts(most=most, window=window)
    now, given_at = 0.0, list[float]()
    for since, healthy, jitter in course:
        now += since
        pause = restarts.pause(now, healthy=healthy, jitter=jitter)
        if pause is None:
            assert sum(at > now - window for at in given_at) == most, "and it is refused for nothing else"
        else:
            assert PAUSE_LEAST / 2 <= pause <= PAUSE_MOST
            given_at.append(now)
        assert all(sum(first <= at < first + window for at in given_at) <= most for first in given_at)
    assert restarts.total == len(given_at)


@given(st.integers(1, 100), st.floats(0, 1))
def test_pauses_double_up_to_the_longest_and_jitter_takes_at_most_a_half(count: int, jitter: float) -> None:
    restarts = Restarts(most=1000, window=math.inf)
    pauses = [restarts.pause(float(number), healthy=0, jitter=jitter) for number in range(count)]
    expected = [min(PAUSE_MOST, PAUSE_LEAST * 2.0**number) * (1 - jitter / 2) for number in range(count)]
    assert pauses == pytest.approx(expected)


def test_a_healthy_run_begins_the_pauses_anew_but_not_the_budget() -> None:
    restarts = Restarts(most=5, window=600)
    assert [restarts.pause(0, healthy=0, jitter=0) for _ in range(3)] == [0.1, 0.2, 0.4]
    assert restarts.pause(100, healthy=HEALTHY_SECONDS, jitter=0) == PAUSE_LEAST
    assert restarts.pause(200, healthy=HEALTHY_SECONDS - 1, jitter=0) == 0.2
    assert restarts.pause(300, healthy=HEALTHY_SECONDS, jitter=0) is None
    assert restarts.pause(601, healthy=0, jitter=0) is not None


def test_without_a_budget_nothing_runs_again() -> None:
    assert Restarts(most=0, window=600).pause(0, healthy=math.inf, jitter=1) is None
