"""How much a process may write: bursts, the long run, and what is over."""

from runtime.enclave.logs.limits import RateLimit


def limit(*, lines: int = 10, lines_burst: int = 20, size: int = 1000, size_burst: int = 10_000) -> RateLimit:
    return RateLimit(lines=lines, lines_burst=lines_burst, size=size, size_burst=size_burst, now=0.0)


def test_a_burst_passes_and_what_is_over_is_cut_behind_a_line() -> None:
    of_lines = limit()
    assert of_lines.admit(b"line\n" * 30, 0.0) == 20 * 5
    assert of_lines.admit(b"line\n", 0.0) == 0


def test_bytes_are_counted_too_and_cut_behind_a_line_where_there_is_one() -> None:
    assert limit(size_burst=12).admit(b"line\n" * 3, 0.0) == 10
    assert limit(size_burst=12).admit(b"x" * 30, 0.0) == 12


def test_what_was_over_gets_nothing_until_a_quarter_of_both_bursts_is_back() -> None:
    over = limit()
    assert over.admit(b"\n" * 21, 0.0) == 20
    assert over.admit(b"\n", 0.49) == 0
    assert over.admit(b"\n" * 9, 0.5) == 5
    assert over.admit(b"\n", 0.9) == 0
    assert over.admit(b"\n" * 6, 1.1) == 6


def test_in_the_long_run_the_rate_holds_and_a_pause_gives_no_more_than_a_burst() -> None:
    rate = limit()
    passed = sum(rate.admit(b"\n" * 7, tenth / 10) for tenth in range(1000))
    assert 10 * 100 - 10 <= passed <= 20 + 10 * 100
    assert rate.admit(b"\n" * 1000, 10_000.0) == 20


def test_a_rate_of_one_line_lets_one_through() -> None:
    slow = limit(lines=1, lines_burst=1)
    assert [slow.admit(b"a\n", float(second)) for second in range(4)] == [2, 2, 2, 2]
    assert slow.admit(b"a\n", 3.5) == 0
    assert slow.admit(b"a\nb\n", 4.0) == 2
