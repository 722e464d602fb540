"""Lines out of bytes: every byte that was written is in one line that came, or in one that was counted."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave.logs.lines import Line, LineSplitter

writes = st.lists(st.tuples(st.booleans(), st.text("ab\n", max_size=12).map(str.encode)), max_size=12)


def whole(data: bytes, limit: int) -> list[Line]:
    splitter = LineSplitter(limit)
    return [*splitter.feed(data), *splitter.finish()]


def written(lines: list[Line]) -> bytes:
    return b"".join(line.data + (b"" if line.is_partial else b"\n") for line in lines)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_lines_are_the_bytes_that_were_written(data: bytes, limit: int) -> None:
    lines = whole(data, limit)
    assert written(lines) == data
    assert all(len(line.data) <= limit for line in lines)
    assert all(b"\n" not in line.data for line in lines)


@given(writes, st.integers(1, 6))
def test_where_lines_are_cut_depends_neither_on_the_reads_nor_on_what_is_skipped(
    parts: list[tuple[bool, bytes]], limit: int
) -> None:
    expected = whole(b"".join(data for _, data in parts), limit)
    splitter = LineSplitter(limit)
    came: list[Line] = []
    for is_skipped, data in [*parts, (False, None)]:
        if is_skipped and data is not None:
            splitter.skip(data)
            continue
        for line in splitter.finish() if data is None else splitter.feed(data):
            came.append(line)
            assert expected[splitter.lost + len(came) - 1] == line
    assert splitter.lost + len(came) == len(expected)


def test_a_line_of_exactly_the_limit_is_not_cut() -> None:
    assert whole(b"abc\nabcd\n", 3) == [Line(b"abc"), Line(b"abc", is_partial=True), Line(b"d")]


def test_what_ends_without_a_line_end_says_so() -> None:
    assert whole(b"abcde", 3) == [Line(b"abc", is_partial=True), Line(b"de", is_partial=True)]
    assert whole(b"", 3) == []


def test_the_rest_of_a_line_whose_beginning_was_skipped_is_lost_too() -> None:
    splitter = LineSplitter(100)
    splitter.skip(b"one\ntwo, its begin")
    assert splitter.lost == 1
    assert list(splitter.feed(b"ning\nthree\n")) == [Line(b"three")]
    assert splitter.lost == 2
    splitter.skip(b"four")
    assert list(splitter.finish()) == []
    assert splitter.lost == 3


def test_empty_lines_are_lines() -> None:
    assert whole(b"\n\na\n\n", 8) == [Line(b""), Line(b""), Line(b"a"), Line(b"")]


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 20))
def test_what_is_held_back_is_never_more_than_the_bound(chunks: list[bytes], limit: int) -> None:
    splitter = LineSplitter(limit)
    for chunk in chunks:
        list(splitter.feed(chunk))
        assert len(splitter._partial) <= limit
