"""Bodies of requests: whole, byte by byte, cut anywhere, and wrong in every way that a reader could be talked into."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.enclave.traffic.http_bodies import Body, ChunkedBody, LengthBody
from runtime.enclave.traffic.refusal import Refusal

GOOD = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"005\r\nhello\r\n00\r\n\r\n", b"hello"),
    (b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a"),
    (b"2;name=value\r\nok\r\n0;last\r\n\r\n", b"ok"),
    (b'2 ; name = "quo\\"ted, \xe9" ;other\r\nok\r\n0\r\n\r\n', b"ok"),
    (b"2\r\n\r\n\r\n0\r\nX-Trailer: 1\r\nContent-Length: 9\r\n\r\n", b"\r\n"),
]
BAD = [
    b"\r\n",
    b"\n",
    b"g\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x5\r\nhello\r\n",
    b"5_0\r\n",
    b" 5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"5\nhello\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhelloX\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"5;=x\r\nhello\r\n",
    b'5;a="b\r\nhello\r\n',
    b"5;a=b c\r\nhello\r\n",
    b"5,\r\nhello\r\n",
    b"5;a=\x00\r\nhello\r\n",
    b"fffffffffffffffff\r\n",
    b"0000000000000005\r\nhello\r\n",
    b"5;" + b"a" * 300 + b"\r\nhello\r\n",
    b"a" * 300,
    b"0\r\n\n",
    b"0\r\nX: 1\n\r\n",
    b"0\r\n X: 1\r\n\r\n",
    b"0\r\nX : 1\r\n\r\n",
    b"0\r\nX\r\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\nX: a\rb\r\n\r\n",
    b"0\r\n" + b"X: 1\r\n" * 2000 + b"\r\n",
    b"0\r\nGET / HTTP/1.1\r\n\r\n",
]


def take_all(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """(content, what was left in the buffer)"""
    buffer = bytearray()
    content = b""
    for piece in pieces:
        buffer += piece
        content += body.take(buffer)
    return content, bytes(buffer)


@pytest.mark.parametrize(("raw", "content"), GOOD)
def test_a_chunked_body_is_read_alike_whole_and_byte_by_byte_and_leaves_the_next_request(raw: bytes, content: bytes) -> None:
    following = b"GET / HTTP/1.1\r\n"
    for pieces in ([raw + following], [bytes((byte,)) for byte in raw + following]):
        body = ChunkedBody()
        assert take_all(body, pieces) == (content, following)
        assert body.complete


@pytest.mark.parametrize(("raw", "content"), GOOD)
def test_a_chunked_body_is_complete_at_its_last_byte_and_not_before(raw: bytes, content: bytes) -> None:
    for size in range(len(raw)):
        body = ChunkedBody()
        take_all(body, [raw[:size]])
        assert not body.complete
    assert content or raw == GOOD[0][0]


@pytest.mark.parametrize("raw", BAD)
def test_a_chunked_body_that_two_readers_could_read_in_two_ways_is_refused(raw: bytes) -> None:
    for pieces in ([raw], [bytes((byte,)) for byte in raw]):
        body = ChunkedBody()
        with pytest.raises(Refusal) as caught:
            take_all(body, pieces)
        assert caught.value.response.status == 400
        assert not body.complete


def test_a_body_of_known_length_takes_its_bytes_and_no_more() -> None:
    body = LengthBody(5)
    assert take_all(body, [b"he", b"", b"llo", b"GET"]) == (b"hello", b"GET")
    assert body.complete
    assert LengthBody(0).complete


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(1, 7))
def test_any_bytes_are_read_as_a_body_or_refused_and_the_cut_does_not_matter(raw: bytes, size: int) -> None:
    def read(pieces: list[bytes]) -> tuple[bytes, bytes] | None:
        try:
            return take_all(ChunkedBody(), pieces)
        except Refusal:
            return None

    whole = read([raw])
    assert read([raw[start : start + size] for start in range(0, len(raw), size)]) == (whole if raw else (b"", b""))
    assert whole is None or len(whole[0]) + len(whole[1]) <= len(raw)


@settings(max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 9))
def test_what_was_chunked_comes_out_as_it_went_in(chunks: list[bytes], size: int) -> None:
    raw = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    body = ChunkedBody()
    assert take_all(body, [raw[start : start + size] for start in range(0, len(raw), size)]) == (b"".join(chunks), b"")
    assert body.complete
