"""Output cut into lines: nothing is lost, nothing grows, and how it arrives does not show."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave.process.lines import LineSplitter

outputs = st.lists(st.sampled_from([b"", b"a", b"\n", b"bb", b"\r\n", b"\0\xff", b"0123456789" * 3])).map(b"".join)


def split(data: bytes, limit: int, cuts: list[int] | None = None) -> list[bytes]:
    """The lines of `data` that arrives in pieces."""
    splitter = LineSplitter(limit)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    lines = [line for start, end in pairwise(places) for line in splitter.feed(data[start:end])]
    return [*lines, *splitter.finish()]


@given(outputs, st.integers(1, 20), st.lists(st.integers(0, 400)))
def test_how_output_arrives_does_not_show(data: bytes, limit: int, cuts: list[int]) -> None:
    assert split(data, limit, cuts) == split(data, limit)


@given(outputs, st.integers(1, 20), st.lists(st.integers(0, 400)))
def test_nothing_but_line_ends_is_lost_and_no_line_is_longer_than_its_bound(data: bytes, limit: int, cuts: list[int]) -> None:
    lines = split(data, limit, cuts)
    assert b"".join(lines) == data.replace(b"\n", b"")
    assert all(len(line) <= limit for line in lines)


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), min_size=1), st.lists(st.integers(0, 400)))
def test_lines_within_the_bound_come_out_as_they_are(lines: list[bytes], cuts: list[int]) -> None:
    assert split(b"".join(line + b"\n" for line in lines), 20, cuts) == lines


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 20))
def test_what_is_held_back_is_never_more_than_the_bound(chunks: list[bytes], limit: int) -> None:
    splitter = LineSplitter(limit)
    for chunk in chunks:
        list(splitter.feed(chunk))
        assert len(splitter._partial) <= limit


def test_a_line_without_end_does_not_wait_for_it() -> None:
    splitter = LineSplitter(4)
    assert list(splitter.feed(b"abcd")) == []
    assert list(splitter.feed(b"efghi")) == [b"abcd", b"efgh"]
    assert list(splitter.finish()) == [b"i"]
    assert list(splitter.finish()) == []


def test_empty_lines_are_lines() -> None:
    assert split(b"\n\na\n\n", 8) == [b"", b"", b"a", b""]
