"""Answers that go wrong after they have begun: the client gets 502, or sees that what it has is not whole."""

from tests.desync.answers.cases import OLD, answer, chunked, cut, named

_CHUNKS = {
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a space in front": b" 5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no hexadecimal digit": b"x\r\nhello\r\n0\r\n\r\n",
    "a size past 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a bare LF behind its size": b"5\nhello\r\n0\r\n\r\n",
    "a bare LF behind its data": b"5\r\nhello\n0\r\n\r\n",
    "no line end": b"5\r\nhello0\r\n\r\n",
    "more data than its size": b"5\r\nhelloX\r\n0\r\n\r\n",
    "a NUL in its extension": b"5;a\x00\r\nhello\r\n0\r\n\r\n",
    "a trailer without a colon": b"5\r\nhello\r\n0\r\nA\r\n\r\n",
    "a trailer with a fold": b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n",
    "a trailer with a NUL": b"5\r\nhello\r\n0\r\nA: \x00\r\n\r\n",
    "trailers of 1 MiB": b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 175000 + b"\r\n",
}

_TRUNCATED = {
    "before a body": answer(b"Content-Length: 100\r\n", b""),
    "within a body": answer(b"Content-Length: 100\r\n", b"hello"),
    "before the chunks": chunked(b""),
    "within a chunk's size": chunked(b"5"),
    "within a chunk": chunked(b"100\r\nhello"),
    "behind a chunk": chunked(b"5\r\nhello\r\n"),
    "within the last chunk": chunked(b"5\r\nhello\r\n0\r\n"),
    "within the trailers": chunked(b"5\r\nhello\r\n0\r\nA: b\r\n"),
}

CASES = [
    *named("a chunk has", [cut(name, chunked(body)) for name, body in _CHUNKS.items()]),
    *named("the connection ends", [cut(name, answer, closes=True) for name, answer in _TRUNCATED.items()]),
    *named(
        "the connection ends, to a client of HTTP/1.0,",
        [
            cut(name, answer, closes=True, request=OLD, why="it cannot see the end of the body but by the end of TLS")
            for name, answer in _TRUNCATED.items()
        ],
    ),
    cut("a chunk's line without end", chunked(b"0" * (1 << 17)), closes=False),
]
