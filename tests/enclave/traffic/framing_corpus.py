"""Requests whose end two readers could see in two places, and what this ingress makes of each.

`refused` ones must be answered with one 4xx or 5xx, close the connection, and reach the customer process as nothing it could act on.
`accepted` ones must reach it as exactly the bytes that stand beside them, whatever they looked like before.
"""

import re
from dataclasses import dataclass

_NAMES = re.compile(rb"x-request-id: ([0-9a-f]{32})\r\ntraceparent: 00-\1-[0-9a-f]{16}-00\r\n")
_H = b"Host: a.example\r\n"
_FORWARDED = (
    b"x-forwarded-for: 203.0.113.7\r\nx-real-ip: 203.0.113.7\r\nx-forwarded-host: %(host)s\r\nx-forwarded-proto: https\r\n"
    b'forwarded: for="203.0.113.7";by=_parent;host="%(host)s";proto=https\r\n\r\n'
)


def unnamed(requests: bytes) -> bytes:
    """Requests at the customer process without the names that each of them got here."""
    return _NAMES.sub(b"", requests)


@dataclass(frozen=True, slots=True)
class Refused:
    name: str
    raw: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Accepted:
    name: str
    raw: bytes
    upstream: tuple[bytes, ...]


def _get(fields: bytes, *, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + _H + fields + b"\r\n"


def _post(fields: bytes, body: bytes, *, version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/" + version + b"\r\n" + _H + fields + b"\r\n" + body


def _up(line: bytes, fields: bytes = b"", body: bytes = b"", *, host: bytes = b"a.example") -> bytes:
    return line + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + fields + _FORWARDED % {b"host": host} + body


_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_HELLO = b"5\r\nhello\r\n0\r\n\r\n"

REFUSED = [
    # Two framings, or one that can be read in two ways
    Refused("CL.TE", _post(b"Content-Length: 6\r\n" + _CHUNKED, b"0\r\n\r\nG"), 400),
    Refused("TE.CL", _post(_CHUNKED + b"Content-Length: 3\r\n", b"8\r\nSMUGGLED\r\n0\r\n\r\n"), 400),
    Refused("TE.TE, two fields", _post(_CHUNKED + b"Transfer-Encoding: identity\r\n", _HELLO), 400),
    Refused("TE.TE, twice chunked", _post(_CHUNKED + _CHUNKED, _HELLO), 400),
    Refused("TE list ending in chunked", _post(b"Transfer-Encoding: gzip, chunked\r\n", _HELLO), 501),
    Refused("TE list not ending in chunked", _post(b"Transfer-Encoding: chunked, identity\r\n", _HELLO), 501),
    Refused("TE chunked twice in a list", _post(b"Transfer-Encoding: chunked, chunked\r\n", _HELLO), 501),
    Refused("TE unknown", _post(b"Transfer-Encoding: xchunked\r\n", _HELLO), 501),
    Refused("TE identity", _post(b"Transfer-Encoding: identity\r\n", b""), 501),
    Refused("TE empty", _post(b"Transfer-Encoding:\r\n", _HELLO), 501),
    Refused("TE quoted", _post(b'Transfer-Encoding: "chunked"\r\n', _HELLO), 501),
    Refused("TE with a parameter", _post(b"Transfer-Encoding: chunked;a=b\r\n", _HELLO), 501),
    Refused("TE with a trailing comma", _post(b"Transfer-Encoding: chunked,\r\n", _HELLO), 501),
    Refused("TE with a vertical tab", _post(b"Transfer-Encoding: \x0bchunked\r\n", _HELLO), 400),
    Refused("TE with a space before the colon", _post(b"Transfer-Encoding : chunked\r\n", _HELLO), 400),
    Refused("TE with a tab before the colon", _post(b"Transfer-Encoding\t: chunked\r\n", _HELLO), 400),
    Refused("TE behind a space", _post(b" Transfer-Encoding: chunked\r\n", _HELLO), 400),
    Refused("TE behind a bare LF", _post(b"X: y\nTransfer-Encoding: chunked\r\n", _HELLO), 400),
    Refused("TE behind a bare CR", _post(b"X: y\rTransfer-Encoding: chunked\r\n", _HELLO), 400),
    Refused("TE folded", _post(b"Transfer-Encoding:\r\n chunked\r\n", _HELLO), 400),
    Refused("TE with an underscore", _post(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", b"hello"), 400),
    Refused("TE in HTTP/1.0", _post(_CHUNKED, _HELLO, version=b"1.0"), 400),
    Refused("TE on GET beside a length of zero", _get(b"Content-Length: 0\r\n" + _CHUNKED), 400),
    Refused("CL twice, different", _post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), 400),
    Refused("CL twice, equal", _post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
    Refused("CL as a list", _post(b"Content-Length: 5, 5\r\n", b"hello"), 400),
    Refused("CL with a plus sign", _post(b"Content-Length: +5\r\n", b"hello"), 400),
    Refused("CL with a minus sign", _post(b"Content-Length: -5\r\n", b"hello"), 400),
    Refused("CL in hexadecimal", _post(b"Content-Length: 0x5\r\n", b"hello"), 400),
    Refused("CL with an underscore in the number", _post(b"Content-Length: 1_0\r\n", b"helloworld"), 400),
    Refused("CL with a space in the number", _post(b"Content-Length: 1 0\r\n", b"helloworld"), 400),
    Refused("CL with a fraction", _post(b"Content-Length: 5.0\r\n", b"hello"), 400),
    Refused("CL in other digits", _post(b"Content-Length: \xd9\xa5\r\n", b"hello"), 400),
    Refused("CL empty", _post(b"Content-Length:\r\n", b"hello"), 400),
    Refused("CL past 64 bits", _post(b"Content-Length: 18446744073709551621\r\n", b"hello"), 400),
    Refused("CL with a NUL", _post(b"Content-Length: 5\x00\r\n", b"hello"), 400),
    Refused("CL with a space before the colon", _post(b"Content-Length : 5\r\n", b"hello"), 400),
    Refused("CL with an underscore in the name", _post(b"Content_Length: 5\r\n", b"hello"), 400),
    Refused("CL folded", _post(b"Content-Length: 5\r\n\t0\r\n", b"hello"), 400),
    Refused("CL named by Connection", _post(b"Content-Length: 5\r\nConnection: Content-Length\r\n", b"hello"), 400),
    Refused("TE named by Connection", _post(_CHUNKED + b"Connection: close, Transfer-Encoding\r\n", _HELLO), 400),
    Refused("Host named by Connection", _get(b"Connection: host\r\n"), 400),
    # Chunks
    Refused("chunk size with a sign", _post(_CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk size with 0x", _post(_CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk size behind a space", _post(_CHUNKED, b" 5\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk size before a space", _post(_CHUNKED, b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk size that overflows", _post(_CHUNKED, b"100000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk size that ends in a bare LF", _post(_CHUNKED, b"5\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk size empty", _post(_CHUNKED, b"\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk longer than its size", _post(_CHUNKED, b"4\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk that ends in a bare LF", _post(_CHUNKED, b"5\r\nhello\n0\r\n\r\n"), 400),
    Refused("chunk extension with a bare LF", _post(_CHUNKED, b"5;a\n\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk extension with a bare CR", _post(_CHUNKED, b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("chunk extension without end", _post(_CHUNKED, b"5;" + b"a" * 1000 + b"\r\nhello\r\n0\r\n\r\n"), 400),
    Refused("last chunk that ends in a bare LF", _post(_CHUNKED, b"5\r\nhello\r\n0\n\n"), 400),
    Refused("last chunk with a bare LF behind it", _post(_CHUNKED, b"5\r\nhello\r\n0\r\n\n"), 400),
    Refused("trailer that is a request line", _post(_CHUNKED, b"5\r\nhello\r\n0\r\n"), 400),
    Refused("trailer folded", _post(_CHUNKED, b"5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n"), 400),
    Refused("trailer without end", _post(_CHUNKED, b"5\r\nhello\r\n0\r\n" + b"X: 1\r\n" * 3000 + b"\r\n"), 400),
    # Fields
    Refused("bare LF as line end", b"GET / HTTP/1.1\nHost: a.example\n\n", 400),
    Refused("bare LF behind one line", b"GET / HTTP/1.1\r\nHost: a.example\n\r\n", 400),
    Refused("CR before CRLF", b"GET / HTTP/1.1\r\nHost: a.example\r\r\n\r\n", 400),
    Refused("obs-fold", _get(b"X: 1\r\n 2\r\n"), 400),
    Refused("obs-fold before the first field", b"GET / HTTP/1.1\r\n X: 1\r\n" + _H + b"\r\n", 400),
    Refused("NUL in a value", _get(b"X: a\x00b\r\n"), 400),
    Refused("control character in a value", _get(b"X: a\x01b\r\n"), 400),
    Refused("DEL in a value", _get(b"X: a\x7fb\r\n"), 400),
    Refused("NUL in a name", _get(b"X\x00Y: a\r\n"), 400),
    Refused("high byte in a name", _get(b"X\xff: a\r\n"), 400),
    Refused("space in a name", _get(b"X Y: a\r\n"), 400),
    Refused("space before the colon", _get(b"X : a\r\n"), 400),
    Refused("no name", _get(b": a\r\n"), 400),
    Refused("no colon", _get(b"GET /smuggled HTTP/1.1\r\n"), 400),
    Refused("huge field", _get(b"X: " + b"a" * 20_000 + b"\r\n"), 431),
    Refused("head without end", b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 5_000, 431),
    Refused("too many fields", _get(b"X: a\r\n" * 101), 431),
    Refused("Host missing", b"GET / HTTP/1.1\r\n\r\n", 400),
    Refused("Host missing in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", 400),
    Refused("Host twice", _get(_H), 400),
    Refused("Host twice, different", _get(b"host: b.example\r\n"), 400),
    Refused("Host empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    Refused("Host as a list", b"GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", 400),
    Refused("Host with a path", b"GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n", 400),
    Refused("Host with a user", b"GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n", 400),
    Refused("Host with a quote", b'GET / HTTP/1.1\r\nHost: a";for=x\r\n\r\n', 400),
    Refused("Host with a bad port", b"GET / HTTP/1.1\r\nHost: a.example:x\r\n\r\n", 400),
    # Request lines
    Refused("HTTP/0.9", b"GET /\r\n", 400),
    Refused("HTTP/0.9 by number", b"GET / HTTP/0.9\r\n\r\n", 505),
    Refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Refused("HTTP/1.2", _get(b"", line=b"GET / HTTP/1.2"), 505),
    Refused("HTTP/1.10", _get(b"", line=b"GET / HTTP/1.10"), 400),
    Refused("http/1.1", _get(b"", line=b"GET / http/1.1"), 400),
    Refused("no version", _get(b"", line=b"GET /"), 400),
    Refused("two spaces", _get(b"", line=b"GET  / HTTP/1.1"), 400),
    Refused("tab for a space", _get(b"", line=b"GET\t/ HTTP/1.1"), 400),
    Refused("space at the end of the line", _get(b"", line=b"GET / HTTP/1.1 "), 400),
    Refused("space in the target", _get(b"", line=b"GET /a b HTTP/1.1"), 400),
    Refused("space before the method", _get(b"", line=b" GET / HTTP/1.1"), 400),
    Refused("two empty lines before the request", b"\r\n\r\n" + _get(b""), 400),
    Refused("bare LF before the request", b"\n" + _get(b""), 400),
    Refused("lower-case method", _get(b"", line=b"get / HTTP/1.1"), 400),
    Refused("mixed-case method", _get(b"", line=b"Get / HTTP/1.1"), 400),
    Refused("method with a colon", _get(b"", line=b"GE:T / HTTP/1.1"), 400),
    Refused("CONNECT", b"CONNECT a.example:443 HTTP/1.1\r\n" + _H + b"\r\n", 501),
    Refused("CONNECT with a path", _get(b"", line=b"CONNECT / HTTP/1.1"), 501),
    Refused("target of another host", _get(b"", line=b"GET http://b.example/ HTTP/1.1"), 400),
    Refused("target with a user", _get(b"", line=b"GET http://u@a.example/ HTTP/1.1"), 400),
    Refused("target of another scheme", _get(b"", line=b"GET ftp://a.example/ HTTP/1.1"), 400),
    Refused("target that is an authority", _get(b"", line=b"GET a.example:443 HTTP/1.1"), 400),
    Refused("target that is an asterisk", _get(b"", line=b"GET * HTTP/1.1"), 400),
    Refused("target without a slash", _get(b"", line=b"GET x HTTP/1.1"), 400),
    Refused("target with a fragment", _get(b"", line=b"GET /#x HTTP/1.1"), 400),
    Refused("target with a high byte", _get(b"", line=b"GET /\xff HTTP/1.1"), 400),
    Refused("target with a NUL", _get(b"", line=b"GET /\x00 HTTP/1.1"), 400),
    Refused("target without end", b"GET /" + b"a" * 20_000, 414),
    Refused("TLS inside TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    # Asked for and not offered
    Refused("Upgrade", _get(b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), 501),
    Refused("Upgrade that Connection does not name", _get(b"Upgrade: h2c\r\n"), 501),
    Refused("Connection: Upgrade alone", _get(b"Connection: upgrade\r\n"), 501),
    Refused("unknown expectation", _post(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello"), 417),
    Refused("two expectations", _post(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", b"hello"), 417),
]

ACCEPTED = [
    Accepted("GET", _get(b""), (_up(b"GET /"),)),
    Accepted("HEAD", _get(b"", line=b"HEAD /x?y=z HTTP/1.1"), (_up(b"HEAD /x?y=z"),)),
    Accepted("an unknown method", _get(b"", line=b"M-SEARCH / HTTP/1.1"), (_up(b"M-SEARCH /"),)),
    Accepted("OPTIONS *", _get(b"", line=b"OPTIONS * HTTP/1.1"), (_up(b"OPTIONS *"),)),
    Accepted("absolute-form", _get(b"", line=b"GET http://A.example/x?y HTTP/1.1"), (_up(b"GET /x?y"),)),
    Accepted("absolute-form without a path", _get(b"", line=b"GET https://a.example HTTP/1.1"), (_up(b"GET /"),)),
    Accepted("absolute-form with a query only", _get(b"", line=b"GET https://a.example?q HTTP/1.1"), (_up(b"GET /?q"),)),
    Accepted("absolute-form of OPTIONS *", _get(b"", line=b"OPTIONS https://a.example HTTP/1.1"), (_up(b"OPTIONS *"),)),
    Accepted("an empty line before the request", b"\r\n" + _get(b""), (_up(b"GET /"),)),
    Accepted("Host with a port", b"GET / HTTP/1.1\r\nhOsT:a.example:8443 \r\n\r\n", (_up(b"GET /", host=b"a.example:8443"),)),
    Accepted("Host that is an IPv6 address", b"GET / HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", (_up(b"GET /", host=b"[::1]:1"),)),
    Accepted("HTTP/1.0", _get(b"", line=b"GET / HTTP/1.0"), (_up(b"GET /"),)),
    Accepted("a length", _post(b"Content-Length: 5\r\n", b"hello"), (_up(b"POST /", b"content-length: 5\r\n", b"hello"),)),
    Accepted("a length of zero", _post(b"Content-Length: 0\r\n", b""), (_up(b"POST /", b"content-length: 0\r\n"),)),
    Accepted(
        "a length with leading zeros",
        _post(b"Content-Length: 005\r\n", b"hello"),
        (_up(b"POST /", b"content-length: 5\r\n", b"hello"),),
    ),
    Accepted("a body on GET", _get(b"Content-Length: 5\r\n") + b"hello", (_up(b"GET /", b"content-length: 5\r\n", b"hello"),)),
    Accepted(
        "chunks, rebuilt",
        _post(b"transfer-ENCODING: Chunked\r\n", b"2;ext=1\r\nhe\r\n003\r\nllo\r\n0;x\r\nContent-Length: 1\r\n\r\n"),
        (_up(b"POST /", b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),),
    ),
    Accepted(
        "hop-by-hop fields",
        _get(
            b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X\r\n"
            b"Proxy-Connection: close\r\nProxy-Authorization: Basic eA==\r\nProxy: http://evil.example\r\nX-End: 1\r\n"
        ),
        (_up(b"GET /", b"x-end: 1\r\n"),),
    ),
    Accepted(
        "forwarding fields that the client made up",
        _get(
            b"X-Forwarded-For: 127.0.0.1\r\nx-forwarded-proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Anything: 1\r\n"
            b"Forwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX_Forwarded_For: 127.0.0.1\r\nX_REAL_IP: 127.0.0.1\r\n"
        ),
        (_up(b"GET /"),),
    ),
    Accepted(
        "forwarding fields named by Connection", _get(b"Connection: X-Forwarded-For, x-real-ip, forwarded\r\n"), (_up(b"GET /"),)
    ),
    Accepted("white space around values", _get(b"A:\t b c \t\r\nB:\r\n"), (_up(b"GET /", b"a: b c\r\nb: \r\n"),)),
    Accepted("bytes past ASCII in a value", _get(b"A: \xc3\xa9\r\n"), (_up(b"GET /", b"a: \xc3\xa9\r\n"),)),
    Accepted("a field that comes twice", _get(b"Cookie: a\r\nCookie: b\r\n"), (_up(b"GET /", b"cookie: a\r\ncookie: b\r\n"),)),
    Accepted("pipelined", _get(b"") + _get(b"", line=b"GET /2 HTTP/1.1"), (_up(b"GET /"), _up(b"GET /2"))),
    Accepted(
        "pipelined behind a body",
        _post(b"Content-Length: 5\r\n", b"hello") + b"\r\n" + _get(b"", line=b"GET /2 HTTP/1.1"),
        (_up(b"POST /", b"content-length: 5\r\n", b"hello"), _up(b"GET /2")),
    ),
    Accepted(
        "pipelined behind chunks",
        _post(_CHUNKED, _HELLO) + _get(b"", line=b"GET /2 HTTP/1.1"),
        (_up(b"POST /", b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"), _up(b"GET /2")),
    ),
    Accepted("Connection: close", _get(b"Connection: close\r\n"), (_up(b"GET /"),)),
]
