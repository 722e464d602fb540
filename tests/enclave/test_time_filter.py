"""The minimum-delay filter against every delay, and every division of a delay, that there can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave.identity.time_filter import RESOLUTION, Sample, correction, estimate, trouble

BEGIN = 1.8e9
"""Unix seconds when the counter is at 0."""
ROUNDING = 1e-5

calls = st.lists(
    st.tuples(
        st.floats(0, 1000),  # when it is sent
        st.floats(0, 30),  # the way there
        st.floats(0, 30),  # the way back
    ),
    min_size=1,
    max_size=5,
)


def truthful(sent: float, there: float, back: float) -> Sample:
    """What a true clock that tells whole milliseconds says, asked and answered with these delays."""
    told = int((BEGIN + sent + there) * 1000) / 1000
    return Sample(sent=sent, received=sent + there + back, unix=told)


@given(calls)
def test_no_delay_and_no_division_of_it_moves_the_result_beyond_its_bound(calls: list[tuple[float, float, float]]) -> None:
    told = estimate([truthful(*call) for call in calls])
    assert abs(told.unix - (BEGIN + told.monotonic)) <= told.error + ROUNDING


@given(calls)
def test_the_sample_with_the_least_delay_counts_and_no_other(calls: list[tuple[float, float, float]]) -> None:
    samples = [truthful(*call) for call in calls]
    told = estimate(samples)
    least = min(sample.delay for sample in samples)
    assert told.error == least / 2 + RESOLUTION
    assert told.unix in [sample.unix for sample in samples if sample.delay == least]


@given(calls, st.floats(1e-6, 1e9), st.floats(-1e9, 1e9))
def test_what_a_slower_answer_says_changes_nothing(calls: list[tuple[float, float, float]], slower: float, lie: float) -> None:
    samples = [truthful(*call) for call in calls]
    worst = max(sample.delay for sample in samples)
    liar = Sample(sent=0.0, received=worst + slower, unix=BEGIN + lie)
    assert estimate([*samples, liar]) == estimate([liar, *samples]) == estimate(samples)


def test_the_time_is_that_of_the_middle_of_the_call() -> None:
    told = estimate([Sample(sent=10.0, received=10.5, unix=BEGIN)])
    assert (told.unix, told.monotonic, told.error) == (BEGIN, 10.25, 0.251)


def test_an_offset_that_may_be_an_error_of_the_measurement_is_left_alone() -> None:
    assert correction(0.0101, 0.01) == 0.0101
    assert correction(-0.0101, 0.01) == -0.0101
    assert correction(0.01, 0.01) == correction(-0.01, 0.01) == 0.0


@pytest.mark.parametrize(
    ("age", "offset", "expected"),
    [
        (59.9, 1.0, ""),
        (59.9, -1.0, ""),
        (60.0, 0.0, "clock_age"),
        (0.0, 1.001, "clock_offset"),
        (0.0, -1.001, "clock_offset"),
        (60.0, 5.0, "clock_age"),
    ],
)
def test_a_clock_is_good_enough_within_both_limits(age: float, offset: float, expected: str) -> None:
    assert trouble(age=age, offset=offset, age_limit=60.0, offset_limit=1.0) == expected
