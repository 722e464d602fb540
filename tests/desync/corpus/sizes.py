"""Far below every limit, and far past it: what is too large is refused with the status that says so, and never cut short."""

from tests.desync.cases import POST_HELLO, Arrival, accept, chunked, named, post, refuse, request

_HEAD = (400, 413, 431)

CASES = [
    accept("a target of 2000 octets", request(line=b"GET /" + b"a" * 1999 + b" HTTP/1.1"), Arrival(target=b"/" + b"a" * 1999)),
    accept("a query of 2000 octets", request(line=b"GET /?" + b"a" * 1998 + b" HTTP/1.1"), Arrival(target=b"/?" + b"a" * 1998)),
    accept("a field of 4000 octets", request(b"Cookie: " + b"a" * 4000 + b"\r\n"), Arrival(has=(b"cookie: " + b"a" * 4000,))),
    accept("a name of 60 octets", request(b"a" * 60 + b": b\r\n"), Arrival(has=(b"a" * 60 + b": b",))),
    accept("50 fields", request(b"".join(b"A-%d: b\r\n" % n for n in range(50)))),
    accept("8000 octets of fields", request(b"".join(b"A-%d: %s\r\n" % (n, b"b" * 390) for n in range(20)))),
    accept(
        "a body of 100 000 octets", post(b"Content-Length: 100000\r\n", b"x" * 100000), Arrival(method=b"POST", body=b"x" * 100000)
    ),
    *named(
        "a request line of 70 000 octets, most in",
        [
            refuse("the target", request(line=b"GET /" + b"a" * 70000 + b" HTTP/1.1"), 414),
            refuse("the query", request(line=b"GET /?" + b"a" * 70000 + b" HTTP/1.1"), 414),
            refuse("the absolute target", request(line=b"GET https://a.example/" + b"a" * 70000 + b" HTTP/1.1"), 414),
            refuse("the method", request(line=b"A" * 70000 + b" / HTTP/1.1"), 400, 414, 501),
            refuse("the version", request(line=b"GET / HTTP/1." + b"1" * 70000), 400, 414, 505),
            refuse("the spaces", request(line=b"GET " + b" " * 70000 + b"/ HTTP/1.1"), 400, 414),
        ],
    ),
    refuse("a target without end", b"GET /" + b"a" * 70000, 414),
    refuse("a method without end", b"A" * 70000, 400, 414, 501),
    *named(
        "a field of 70 000 octets, most in",
        [
            refuse("the value", request(b"A: " + b"b" * 70000 + b"\r\n"), 431),
            refuse("the name", request(b"a" * 70000 + b": b\r\n"), 400, 431),
            refuse("white space before the value", request(b"A:" + b" " * 70000 + b"b\r\n"), 431),
            refuse("white space behind the value", request(b"A: b" + b"\t" * 70000 + b"\r\n"), 431),
            refuse("Cookie", request(b"Cookie: " + b"a=b;" * 17500 + b"\r\n"), 431),
            refuse("Host", request(host=b"Host: " + b"a" * 70000 + b"\r\n"), 400, 431),
            refuse("Content-Length", post(b"Content-Length: " + b"0" * 70000 + b"\r\n"), 400, 431),
            refuse("Transfer-Encoding", post(b"Transfer-Encoding: " + b"chunked," * 8750 + b"\r\n"), 400, 431, 501),
            refuse("Connection", request(b"Connection: " + b"a," * 35000 + b"\r\n"), 400, 431),
            refuse("Expect", request(b"Expect: " + b"a" * 70000 + b"\r\n"), 400, 417, 431),
        ],
    ),
    refuse("a field without end", b"GET / HTTP/1.1\r\nHost: a.example\r\nA: " + b"b" * 70000, 431),
    refuse("a fold without end", b"GET / HTTP/1.1\r\nHost: a.example\r\nA: b\r\n" + b" c\r\n" * 20000, *_HEAD),
    refuse("a head without end", b"GET / HTTP/1.1\r\nHost: a.example\r\n" + b"A: b\r\n" * 20000, 431),
    refuse("1000 fields", request(b"A: b\r\n" * 1000), 431),
    refuse("1000 empty fields", request(b"A:\r\n" * 1000), 431),
    refuse("1000 Cookies", request(b"Cookie: a\r\n" * 1000), 431),
    refuse("90 fields of 1000 octets", request(b"".join(b"A-%d: %s\r\n" % (n, b"b" * 1000) for n in range(90))), 431),
    refuse("1000 Hosts", request(b"Host: a.example\r\n" * 1000), 400, 431),
    refuse("1000 lengths", post(b"Content-Length: 5\r\n" * 1000, b"hello"), 400, 431),
    refuse("an empty line for a start, 70 000 octets of them", b"\r\n" * 35000, 400, 431),
    refuse("a chunk's line of 70 000 octets", chunked(b"5;" + b"a" * 70000 + b"\r\nhello\r\n0\r\n\r\n"), *_HEAD),
    refuse("a chunk's line without end", chunked(b"5;a=" + b"b" * 70000), *_HEAD),
    refuse("a chunk's size without end", chunked(b"0" * 70000), *_HEAD),
    refuse("trailers of 70 000 octets", chunked(b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 11700 + b"\r\n"), *_HEAD),
    refuse("trailers without end", chunked(b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 20000), *_HEAD),
    refuse("a trailer without end", chunked(b"5\r\nhello\r\n0\r\nA: " + b"b" * 70000), *_HEAD),
    accept("a chunk's line of 60 octets", chunked(b"5;a=" + b"b" * 56 + b"\r\nhello\r\n0\r\n\r\n"), POST_HELLO),
]
