"""More than one request on a connection, of which one may be bad, the last one, or cut off."""

from tests.desync.cases import (
    CHUNKED,
    HELLO_CHUNKS,
    POST_EMPTY,
    POST_HELLO,
    Arrival,
    Case,
    accept,
    cut,
    named,
    post,
    refuse,
    request,
)

_GET = request()
_POST = post(b"Content-Length: 5\r\n", b"hello")
_CHUNKS = post(CHUNKED, HELLO_CHUNKS)
_ONE = (Arrival(),)


def _get(number: int) -> bytes:
    return request(line=b"GET /%d HTTP/1.1" % number)


def _arrivals(count: int) -> tuple[Arrival, ...]:
    return tuple(Arrival(target=b"/%d" % number) for number in range(count))


_BAD: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "a bad method": (request(line=b"get / HTTP/1.1"), (400, 501)),
    "no Host": (request(host=b""), (400,)),
    "a bare LF": (b"GET / HTTP/1.1\nHost: a.example\n\n", (400,)),
    "a fold": (request(b"A: b\r\n c\r\n"), (400,)),
    "a NUL": (request(b"A: \x00\r\n"), (400,)),
    "both framings": (post(b"Content-Length: 5\r\n" + CHUNKED, HELLO_CHUNKS), (400,)),
    "two lengths": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"), (400,)),
    "an unknown coding": (post(b"Transfer-Encoding: x\r\n", HELLO_CHUNKS), (400, 501)),
    "a bad chunk": (post(CHUNKED, b"x\r\nhello\r\n0\r\n\r\n"), (400,)),
    "a bad version": (request(line=b"GET / HTTP/3.0"), (400, 505)),
    "a target too long": (request(line=b"GET /" + b"a" * 70000 + b" HTTP/1.1"), (414,)),
    "a head too large": (request(b"A: " + b"b" * 70000 + b"\r\n"), (431,)),
    "CONNECT": (request(line=b"CONNECT a.example:443 HTTP/1.1"), (400, 405, 501)),
    "an unknown expectation": (post(b"Expect: x\r\nContent-Length: 5\r\n", b"hello"), (400, 417)),
    "no request but binary": (bytes(range(256)), (400,)),
}

CASES: list[Case] = [
    *named("behind a good GET comes", [refuse(name, _GET + raw, *statuses, after=_ONE) for name, (raw, statuses) in _BAD.items()]),
    *named(
        "behind a good POST comes",
        [refuse(name, _POST + raw, *statuses, after=(POST_HELLO,)) for name, (raw, statuses) in _BAD.items()],
    ),
    *named(
        "behind good chunks comes",
        [refuse(name, _CHUNKS + raw, *statuses, after=(POST_HELLO,)) for name, (raw, statuses) in _BAD.items()],
    ),
    *named(
        "between two good GETs comes",
        [refuse(name, _GET + raw + _GET, *statuses, after=_ONE) for name, (raw, statuses) in _BAD.items()],
    ),
    *named(
        "refused to HEAD is",
        [
            refuse(name, raw.replace(b"GET ", b"HEAD ", 1).replace(b"POST ", b"HEAD ", 1), *statuses)
            for name, (raw, statuses) in _BAD.items()
            if raw.startswith((b"GET ", b"POST "))
        ],
    ),
    refuse(
        "refused to HEAD is an upgrade", request(b"Connection: Upgrade\r\nUpgrade: h2c\r\n", line=b"HEAD / HTTP/1.1"), 400, 426, 501
    ),
    refuse("refused to HEAD is Host named by Connection", request(b"Connection: Host\r\n", line=b"HEAD / HTTP/1.1")),
    refuse("refused to HEAD is another authority", request(line=b"HEAD https://b.example/ HTTP/1.1")),
    refuse(
        "refused to HEAD behind a good HEAD is an expectation",
        request(line=b"HEAD / HTTP/1.1") + request(b"Expect: x\r\n", line=b"HEAD / HTTP/1.1"),
        400,
        417,
        after=(Arrival(method=b"HEAD"),),
    ),
    accept("two GETs", _get(0) + _get(1), *_arrivals(2)),
    accept("a hundred GETs", b"".join(_get(number) for number in range(100)), *_arrivals(100)),
    accept("GET, POST, chunks, GET", _GET + _POST + _CHUNKS + _GET, Arrival(), POST_HELLO, POST_HELLO, Arrival()),
    accept("HEAD, GET", request(line=b"HEAD / HTTP/1.1") + _GET, Arrival(method=b"HEAD"), Arrival()),
    accept("an empty line behind a body", _POST + b"\r\n" + _GET, POST_HELLO, Arrival(), why="RFC 9112 section 2.2"),
    accept("an empty line behind chunks", _CHUNKS + b"\r\n" + _GET, POST_HELLO, Arrival()),
    accept("an empty line behind a GET", _GET + b"\r\n" + _GET, Arrival(), Arrival()),
    refuse("three empty lines behind a body", _POST + b"\r\n\r\n\r\n" + _GET, after=(POST_HELLO,)),
    accept("a length of zero and a request", post(b"Content-Length: 0\r\n") + _POST + _GET, POST_EMPTY, POST_HELLO, Arrival()),
    accept("no length and a request", post(b"") + _GET, POST_EMPTY, Arrival()),
    accept("bytes behind Connection: close", request(b"Connection: close\r\n") + _GET, closes=True),
    accept("binary behind Connection: close", request(b"Connection: close\r\n") + bytes(range(256)), closes=True),
    accept(
        "bytes behind a POST with Connection: close",
        post(b"Connection: close\r\nContent-Length: 5\r\n", b"hello") + _GET,
        POST_HELLO,
        closes=True,
    ),
    accept(
        "bytes behind chunks with Connection: close",
        post(b"Connection: close\r\n" + CHUNKED, HELLO_CHUNKS) + _GET,
        POST_HELLO,
        closes=True,
    ),
    accept("bytes behind HTTP/1.0", request(line=b"GET / HTTP/1.0") + _GET, closes=True),
    accept(
        "GET, then HTTP/1.0, then GET",
        _GET + request(line=b"GET /old HTTP/1.0") + _GET,
        Arrival(),
        Arrival(target=b"/old"),
        closes=True,
    ),
    refuse("one byte more than a length", post(b"Content-Length: 5\r\n", b"hello\x00"), after=(POST_HELLO,)),
    refuse(
        "a length more than its body takes the next request's first byte",
        post(b"Content-Length: 6\r\n", b"hello") + _GET + b"\x00",
        after=(Arrival(method=b"POST", body=b"helloG"), Arrival(method=b"ET")),
    ),
    refuse("a body behind a GET", request(b"", b"hello"), after=_ONE),
    refuse("a body behind a HEAD", request(b"", b"hello", line=b"HEAD / HTTP/1.1"), after=(Arrival(method=b"HEAD"),)),
    refuse("chunks that nobody announced", request(b"", HELLO_CHUNKS), after=_ONE),
    *named(
        "the client ends",
        [
            cut("before a request", b""),
            cut("within an empty line", b"\r"),
            cut("behind an empty line", b"\r\n"),
            cut("within a method", b"GE"),
            cut("within a request line", b"GET / HTT"),
            cut("behind a request line", b"GET / HTTP/1.1\r\n"),
            cut("within a field", b"GET / HTTP/1.1\r\nHost: a.ex"),
            cut("before the empty line", b"GET / HTTP/1.1\r\nHost: a.example\r\n"),
            cut("within the empty line", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r"),
            cut("before a body", post(b"Content-Length: 5\r\n")),
            cut("within a body", post(b"Content-Length: 5\r\n", b"hell")),
            cut("before chunks", post(CHUNKED)),
            cut("within a chunk's size", post(CHUNKED, b"5")),
            cut("within a chunk", post(CHUNKED, b"5\r\nhel")),
            cut("behind a chunk", post(CHUNKED, b"5\r\nhello\r\n")),
            cut("within the last chunk", post(CHUNKED, b"5\r\nhello\r\n0")),
            cut("behind the last chunk", post(CHUNKED, b"5\r\nhello\r\n0\r\n")),
            cut("within the trailers", post(CHUNKED, b"5\r\nhello\r\n0\r\nA: b\r\n")),
            cut("within a body that is asked for by 100", post(b"Expect: 100-continue\r\nContent-Length: 5\r\n")),
            cut("behind a GET", _GET, Arrival()),
            cut("behind a POST", _POST, POST_HELLO),
            cut("behind chunks", _CHUNKS, POST_HELLO),
            cut("behind two GETs", _get(0) + _get(1), *_arrivals(2)),
            cut("within a second request", _GET + _GET[:-2], Arrival()),
            cut("within a second request's body", _GET + _POST[:-1], Arrival()),
        ],
    ),
]
