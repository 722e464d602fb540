"""Answers that reach the client as they are meant, and nothing of what surrounds them."""

from dataclasses import replace

from tests.desync.answers.cases import HEAD, OLD, POISON, POST, WEBSOCKET, AnswerCase, answer, chunked, named, poisoned, refused


def _statuses() -> list[AnswerCase]:
    return [
        AnswerCase(name=str(status), answer=answer(line=b"HTTP/1.1 %d X" % status), status=status)
        for status in (200, 201, 206, 299, 301, 400, 404, 413, 500, 502, 503, 599)
    ]


CASES = [
    *named("a status", _statuses()),
    AnswerCase(name="a length", answer=answer()),
    AnswerCase(name="a length of zero", answer=answer(b"Content-Length: 0\r\n", b""), body=b""),
    AnswerCase(name="a length with white space around", answer=answer(b"Content-Length: \t2 \r\n")),
    AnswerCase(name="chunks", answer=chunked(b"2\r\nok\r\n0\r\n\r\n")),
    AnswerCase(name="chunks of every sort", answer=chunked(b"001\r\no\r\n1;a=b\r\nk\r\n000\r\n\r\n")),
    AnswerCase(name="chunks with extensions", answer=chunked(b'2;a;b=c;d="e;f"\r\nok\r\n0;g\r\n\r\n')),
    AnswerCase(name="chunks with a trailer", answer=chunked(b"2\r\nok\r\n0\r\nX-Digest: a\r\n\r\n")),
    AnswerCase(
        name="chunks with trailers that none may be",
        answer=chunked(b"2\r\nok\r\n0\r\nContent-Length: 9\r\nSet-Cookie: a\r\n\r\n"),
        optional=True,
        lacks=(b"content-length", b"set-cookie"),
        why="RFC 9110 section 6.5.1: dropped",
    ),
    AnswerCase(
        name="chunks with an extension of 64 KiB",
        answer=chunked(b"2;" + b"a" * 65536 + b"\r\nok\r\n0\r\n\r\n"),
        optional=True,
        why="no limit is named; none is needed",
    ),
    AnswerCase(name="chunks, none", answer=chunked(b"0\r\n\r\n"), body=b""),
    AnswerCase(
        name="a chunk that looks like an answer", answer=chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(POISON), POISON)), body=POISON
    ),
    AnswerCase(
        name="a body that looks like an answer", answer=answer(b"Content-Length: %d\r\n" % len(POISON), POISON), body=POISON
    ),
    AnswerCase(name="until the connection ends", answer=answer(b"", b"ok"), closes=True, clean=False),
    AnswerCase(name="until the connection ends, which is at once", answer=answer(b"", b""), closes=True, body=b"", clean=False),
    AnswerCase(
        name="until the connection ends, an answer in its body",
        answer=answer(b"", POISON),
        closes=True,
        body=POISON,
        clean=False,
    ),
    AnswerCase(name="until the connection ends, to HTTP/1.0", answer=answer(b"", b"ok"), closes=True, request=OLD, clean=False),
    AnswerCase(name="HTTP/1.0 with a length", answer=answer(line=b"HTTP/1.0 200 OK"), clean=False),
    AnswerCase(name="HTTP/1.0 until the connection ends", answer=answer(b"", line=b"HTTP/1.0 200 OK"), closes=True, clean=False),
    AnswerCase(
        name="Connection: close with a length",
        answer=answer(b"Connection: close\r\nContent-Length: 2\r\n"),
        closes=True,
        clean=False,
    ),
    AnswerCase(name="Connection: close and no close", answer=answer(b"Connection: close\r\nContent-Length: 2\r\n"), clean=False),
    AnswerCase(name="chunks to a client of HTTP/1.0", answer=chunked(b"2\r\nok\r\n0\r\n\r\n"), request=OLD),
    AnswerCase(name="a length to a client of HTTP/1.0", answer=answer(), request=OLD),
    AnswerCase(
        name="HEAD with a length",
        answer=answer(b"Content-Length: 9\r\n", b""),
        request=HEAD,
        body=b"",
        has=(b"content-length: 9",),
    ),
    AnswerCase(name="HEAD with chunks announced", answer=chunked(b""), request=HEAD, body=b""),
    AnswerCase(name="HEAD with nothing", answer=answer(b"", b""), request=HEAD, body=b""),
    AnswerCase(name="204", answer=answer(b"", b"", line=b"HTTP/1.1 204 No Content"), status=204, body=b""),
    AnswerCase(
        name="204 with a length of zero",
        answer=answer(b"Content-Length: 0\r\n", b"", line=b"HTTP/1.1 204 X"),
        status=204,
        body=b"",
    ),
    AnswerCase(name="304", answer=answer(b'ETag: "a"\r\n', b"", line=b"HTTP/1.1 304 X"), status=304, body=b"", has=(b'etag: "a"',)),
    AnswerCase(
        name="304 with a length", answer=answer(b"Content-Length: 9\r\n", b"", line=b"HTTP/1.1 304 X"), status=304, body=b""
    ),
    AnswerCase(name="an empty reason", answer=answer(line=b"HTTP/1.1 200 ")),
    AnswerCase(
        name="no reason and no space",
        answer=answer(line=b"HTTP/1.1 200"),
        optional=True,
        why="RFC 9112 section 4 has the space; many forget it",
    ),
    AnswerCase(name="a reason of several words and high bytes", answer=answer(line=b"HTTP/1.1 200 A b \xc3\xa9")),
    AnswerCase(
        name="a status past 599",
        answer=answer(line=b"HTTP/1.1 799 X"),
        status=799,
        optional=True,
        why="RFC 9110 section 15: invalid, as 5xx",
    ),
    AnswerCase(
        name="Set-Cookie twice",
        answer=answer(b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n"),
        has=(b"set-cookie: a=1", b"set-cookie: b=2"),
    ),
    AnswerCase(name="bytes past ASCII in a value", answer=answer(b"A: \xc3\xa9\r\nContent-Length: 2\r\n"), has=(b"a: \xc3\xa9",)),
    AnswerCase(name="white space around a value", answer=answer(b"A: \t b \r\nContent-Length: 2\r\n"), has=(b"a: b",)),
    AnswerCase(name="an empty value", answer=answer(b"A:\r\nContent-Length: 2\r\n")),
    AnswerCase(
        name="fields of the hop",
        answer=answer(b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: x\r\nContent-Length: 2\r\n"),
        lacks=(b"keep-alive", b"proxy-connection"),
    ),
    AnswerCase(
        name="a field that Connection names",
        answer=answer(b"Connection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n"),
        lacks=(b"x-hop",),
    ),
    AnswerCase(
        name="an upgrade that is offered",
        answer=answer(b"Connection: Upgrade\r\nUpgrade: h2,h2c\r\nContent-Length: 2\r\n"),
        lacks=(b"upgrade",),
    ),
    AnswerCase(
        name="Connection names the length",
        answer=answer(b"Connection: Content-Length\r\nContent-Length: 2\r\n"),
        optional=True,
        why="framing is not the hop's",
    ),
    AnswerCase(name="a 103 in front", answer=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer()),
    AnswerCase(name="a 102 in front", answer=b"HTTP/1.1 102 Processing\r\n\r\n" + answer()),
    AnswerCase(name="a 100 that nobody asked for", answer=b"HTTP/1.1 100 Continue\r\n\r\n" + answer()),
    AnswerCase(name="a 103 to a client of HTTP/1.0", answer=b"HTTP/1.1 103 X\r\n\r\n" + answer(), request=OLD),
    AnswerCase(name="five interim answers", answer=b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" * 5 + answer()),
    AnswerCase(
        name="ten thousand interim answers",
        answer=b"HTTP/1.1 103 X\r\nA: b\r\n\r\n" * 10000 + answer(),
        optional=True,
        why="RFC 9110 section 15.2 names no limit; nobody sends so many",
    ),
    AnswerCase(
        name="a 103 with a length",
        answer=b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n\r\n" + answer(),
        optional=True,
        why="RFC 9110 section 8.6 forbids it",
    ),
    poisoned("an answer behind the answer", answer()),
    poisoned("an answer behind chunks", chunked(b"2\r\nok\r\n0\r\n\r\n")),
    poisoned("an answer behind an empty answer", answer(b"Content-Length: 0\r\n", b""), body=b""),
    poisoned("an answer behind a 204", answer(b"", b"", line=b"HTTP/1.1 204 X"), status=204, body=b""),
    poisoned("an answer behind a 304", answer(b"", b"", line=b"HTTP/1.1 304 X"), status=304, body=b""),
    poisoned(
        "an answer behind a 304 with a length", answer(b"Content-Length: 9\r\n", b"", line=b"HTTP/1.1 304 X"), status=304, body=b""
    ),
    poisoned("an answer behind the answer to HEAD", answer(b"Content-Length: 9\r\n", b""), body=b"", request=HEAD),
    poisoned("a body to HEAD", answer(), body=b"", request=HEAD),
    poisoned("chunks to HEAD", chunked(b"2\r\nok\r\n0\r\n\r\n"), body=b"", request=HEAD),
    poisoned("a body in a 304", answer(line=b"HTTP/1.1 304 X"), status=304, body=b""),
    poisoned("a body in a 204", answer(line=b"HTTP/1.1 204 X"), status=204, body=b"", optional=True),
    poisoned(
        "chunks in a 204",
        answer(b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n", line=b"HTTP/1.1 204 X"),
        status=204,
        body=b"",
        optional=True,
    ),
    poisoned("a body longer than its length", answer(body=b"okay")),
    poisoned("an empty line behind the answer", answer() + b"\r\n"),
    poisoned("a NUL behind the answer", answer() + b"\x00"),
    AnswerCase(name="an answer before the body has come", answer=answer(), request=POST, early=True, follows=False, clean=False),
    AnswerCase(
        name="a 413 before the body has come",
        answer=answer(line=b"HTTP/1.1 413 X"),
        request=POST,
        early=True,
        status=413,
        follows=False,
        clean=False,
    ),
    AnswerCase(
        name="a 413 and an end before the body has come",
        answer=answer(b"Connection: close\r\nContent-Length: 2\r\n", line=b"HTTP/1.1 413 X"),
        request=POST,
        early=True,
        closes=True,
        status=413,
        follows=False,
        clean=False,
    ),
    AnswerCase(
        name="chunks before the body has come",
        answer=chunked(b"2\r\nok\r\n0\r\n\r\n"),
        request=POST,
        early=True,
        follows=False,
        clean=False,
    ),
    AnswerCase(
        name="a websocket that is refused",
        answer=answer(line=b"HTTP/1.1 403 X"),
        request=WEBSOCKET,
        status=403,
        clean=False,
        follows=False,
    ),
    AnswerCase(
        name="a websocket",
        answer=answer(
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            b"\x81\x02ok",
            line=b"HTTP/1.1 101 X",
        ),
        request=WEBSOCKET,
        outcome="switched",
        body=b"\x81\x02ok",
        follows=False,
        clean=False,
    ),
    *(
        replace(
            refused(
                f"a websocket that is answered by 101 with {name}", b"HTTP/1.1 101 X\r\n" + fields + b"\r\n", request=WEBSOCKET
            ),
            follows=False,
        )
        for name, fields in {
            "another protocol": b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "no protocol": b"Connection: Upgrade\r\n",
            "two protocols": b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
            "a bare LF": b"Connection: Upgrade\nUpgrade: websocket\r\n",
        }.items()
    ),
]
