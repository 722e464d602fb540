"""Requests and answers that nobody wrote down: put together by a grammar that goes wrong now and then, and bent by single bytes."""

from random import Random

_METHODS = (b"GET",) * 40 + (b"POST",) * 40 + (
    b"HEAD", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"QUERY", b"get", b"G\x00T", b"", b"CONNECT", b"TRACE", b"X-Y",
)  # fmt: skip
_TARGETS = (b"/",) * 60 + (
    b"/a?b=c", b"https://a.example/x", b"*", b"/#", b"/\xff", b"", b"//", b"a.example:1", b"http://b.example/", b"/a b",
)  # fmt: skip
_VERSIONS = (b"HTTP/1.1",) * 60 + (b"HTTP/1.0",) * 2 + (b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b"")
_LINE_ENDS = (b"\r\n",) * 250 + (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\x00\r\n", b"\x0b\r\n", b"\r\n\r\n")
_HOSTS = (b"Host: a.example",) * 90 + (
    b"", b"Host: a.example\r\nHost: b.example", b"Host:", b"Host : a.example", b"host:a.example", b"Host: a b",
)  # fmt: skip
_NAMES = (
    b"Content-Length", b"content-length", b"Transfer-Encoding", b"transfer-encoding", b"Content_Length", b"Transfer_Encoding",
    b"Connection", b"Expect", b"Upgrade", b"TE", b"Trailer", b"A", b"Cookie", b"X-Forwarded-For", b"Content-Length ", b"Host",
    b" Transfer-Encoding", b"Transfer-Encoding\x00", b"Content-Length\t", b"", b"A B", b"\xff", b"Keep-Alive", b"Forwarded",
    b"X_Forwarded_For", b"Proxy", b"X-Request-Id", b"traceparent",
)  # fmt: skip
_COLONS = (b": ",) * 12 + (b":", b":\t", b" : ")
_VALUES = (
    b"0", b"5", b"5", b"6", b"05", b"+5", b"5, 5", b"-1", b"0x5", b"", b"chunked", b"chunked", b"Chunked", b"chunked, chunked",
    b"gzip, chunked", b"identity", b"\x0bchunked", b"chunked\r", b"close", b"keep-alive", b"content-length", b"host", b"a", b"upgrade",
    b"transfer-encoding", b"100-continue", b"200-ok", b"websocket", b"h2c", b"trailers", b"a\x00b", b"a\rb", b"a\nb", b"5\n", b"5;a",
    b"99999999999999999999", b"a\r\n b", b"\xa05", b"x" * 300,
)  # fmt: skip
_SIZES = (b"5",) * 50 + (
    b"05", b"5;a", b'5;a="b"', b"5 ", b" 5", b"+5", b"0x5", b"4", b"6", b"", b"5\t;a", b"5;a\rb", b"5;\n", b"ffffffffffffffff", b"-5", b"g",
)  # fmt: skip
_ENDINGS = (b"0\r\n\r\n",) * 30 + (
    b"0\r\nA: b\r\n\r\n", b"0\r\n", b"0\n\n", b"00\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\n\n", b"",
)  # fmt: skip
_BODIES = (b"hello",) * 12 + (b"hell", b"hello!", b"\r\n\r\n\n")
_BYTES = (
    b"\r", b"\n", b"\r\n", b"\x00", b"\t", b" ", b":", b";", b",", b"\x0b", b"\x85", b"\xa0", b"0", b"_", b"-", b"\x7f", b"/", b'"',
    b"\r\n\r\n",
)  # fmt: skip
_STATUS_LINES = (b"HTTP/1.1 200 OK",) * 60 + (
    b"HTTP/1.0 200 OK", b"HTTP/1.1 204 X", b"HTTP/1.1 304 X", b"HTTP/1.1 100 X", b"HTTP/1.1 103 X", b"HTTP/1.1 101 X", b"HTTP/1.1 200",
    b"HTTP/2.0 200 OK", b"200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 2000 OK", b"", b"HTTP/1.1 20 OK", b"HTTP/1.1 500 X",
)  # fmt: skip


def requests(random: Random) -> bytes:
    """One to three requests, most of them nearly right."""
    data = b"".join(_request(random) for _ in range(random.choice((1, 1, 2, 3))))
    return bent(random, data, random.choice((0, 0, 0, 0, 1, 1, 2)))


def answer(random: Random) -> bytes:
    """An answer, perhaps with interim ones in front and bytes behind."""
    interim = b"HTTP/1.1 103 X" + random.choice(_LINE_ENDS) + b"A: b\r\n\r\n" if random.random() < 0.15 else b""
    line = random.choice(_STATUS_LINES) + random.choice(_LINE_ENDS)
    behind = random.choice((b"",) * 6 + (b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"))
    return bent(random, interim + line + _rest(random) + behind, random.choice((0, 0, 0, 0, 1, 1, 2)))


def _request(random: Random) -> bytes:
    line = b" ".join((random.choice(_METHODS), random.choice(_TARGETS), random.choice(_VERSIONS))) + random.choice(_LINE_ENDS)
    host = random.choice(_HOSTS)
    return line + (host + random.choice(_LINE_ENDS) if host else b"") + _rest(random)


def _rest(random: Random) -> bytes:
    """Fields and a body."""
    fields = b""
    for _ in range(random.choice((0, 0, 0, 0, 0, 1, 1, 2, 3))):
        fields += b"".join(random.choice(part) for part in (_NAMES, _COLONS, _VALUES, _LINE_ENDS))
    match random.randrange(4):
        case 0:
            return fields + b"\r\n"
        case 1:
            return fields + b"Content-Length: 5\r\n\r\n" + random.choice(_BODIES)
        case 2:
            parts = (_SIZES, _LINE_ENDS, (b"hello",), _LINE_ENDS)
            chunks = b"".join(random.choice(part) for _ in range(random.randrange(3)) for part in parts)
            return fields + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + random.choice(_ENDINGS)
        case _:
            return fields + random.choice(_LINE_ENDS) + random.choice((b"", b"", b"", b"hello", b"0\r\n\r\n"))


def bent(random: Random, data: bytes, times: int) -> bytes:
    """`data` with so many small changes: a byte that matters put in or over another, some taken out or said twice."""
    for _ in range(times):
        at = random.randint(0, len(data))
        match random.randrange(4):
            case 0:
                data = data[:at] + random.choice(_BYTES) + data[at:]
            case 1:
                data = data[:at] + data[at + random.randint(1, 4) :]
            case 2:
                data = data[:at] + random.choice(_BYTES) + data[at + 1 :]
            case _:
                data = data[:at] + data[at : at + random.randint(1, 30)] + data[at:]
    return data
