"""What is meant for the next hop only, what this hop writes, and what it does not offer (RFC 9110 sections 7.6, 7.8 and 10.1.1)."""

from tests.desync.cases import POST_HELLO, Arrival, accept, either, named, post, refuse, request

_WEBSOCKET = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
_UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_NOT_OFFERED = (400, 426, 501)

_SPOOFED = {
    "X-Forwarded-For": b"X-Forwarded-For: 127.0.0.1\r\n",
    "X-Forwarded-For twice": b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n",
    "X-Forwarded-For as a list": b"X-Forwarded-For: 127.0.0.1, 10.0.0.1\r\n",
    "X-Forwarded-For empty": b"X-Forwarded-For:\r\n",
    "X-Forwarded-For in lower case": b"x-forwarded-for: 127.0.0.1\r\n",
    "X_Forwarded_For": b"X_Forwarded_For: 127.0.0.1\r\n",
    "X-Forwarded_For": b"X-Forwarded_For: 127.0.0.1\r\n",
    "X_FORWARDED-FOR": b"X_FORWARDED-FOR: 127.0.0.1\r\n",
    "X-Forwarded-Proto": b"X-Forwarded-Proto: http\r\n",
    "X_Forwarded_Proto": b"X_Forwarded_Proto: http\r\n",
    "X-Forwarded-Host": b"X-Forwarded-Host: b.example\r\n",
    "X_Forwarded_Host": b"X_Forwarded_Host: b.example\r\n",
    "X-Forwarded-Port": b"X-Forwarded-Port: 1\r\n",
    "X-Forwarded-Prefix": b"X-Forwarded-Prefix: /admin\r\n",
    "X-Forwarded-Server": b"X-Forwarded-Server: b.example\r\n",
    "Forwarded": b"Forwarded: for=127.0.0.1;proto=http\r\n",
    "Forwarded twice": b"Forwarded: for=127.0.0.1\r\nForwarded: for=10.0.0.1\r\n",
    "X-Real-IP": b"X-Real-IP: 127.0.0.1\r\n",
    "X_Real_IP": b"X_Real_IP: 127.0.0.1\r\n",
    "all of them": b"X-Forwarded-For: 1\r\nX-Forwarded-Proto: 2\r\nX-Forwarded-Host: 3\r\nForwarded: 4\r\nX-Real-IP: 5\r\n",
}

_TRACES = {
    "X-Request-Id": b"X-Request-Id: abc-123\r\n",
    "X-Request-Id twice": b"X-Request-Id: abc\r\nX-Request-Id: def\r\n",
    "X-Request-Id and its underscored double": b"X-Request-Id: abc\r\nX_Request_Id: def\r\n",
    "X_Request_Id": b"X_Request_Id: abc\r\n",
    "X-Request-Id empty": b"X-Request-Id:\r\n",
    "X-Request-Id of 4000 letters": b"X-Request-Id: " + b"a" * 4000 + b"\r\n",
    "X-Request-Id with high bytes": b"X-Request-Id: \xff\xfe\r\n",
    "X-Request-Id with spaces": b"X-Request-Id: a b c\r\n",
    "X-Request-Id with quotes and braces": b'X-Request-Id: "}{"a":1\r\n',
    "traceparent": b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    "traceparent twice": b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" * 2,
    "traceparent of zeros": b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n",
    "traceparent of words": b"traceparent: hello\r\n",
    "traceparent in upper case": b"traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01\r\n",
}

_HOPS = {
    "Keep-Alive": b"Keep-Alive: timeout=5\r\n",
    "Proxy-Connection": b"Proxy-Connection: keep-alive\r\n",
    "Proxy-Authorization": b"Proxy-Authorization: Basic eA==\r\n",
    "Proxy": b"Proxy: http://b.example\r\n",
    "TE": b"TE: trailers, deflate\r\n",
    "Trailer": b"Trailer: X\r\n",
    "HTTP2-Settings": b"Connection: HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
}

_NAMED = {
    "Authorization": b"Connection: Authorization\r\nAuthorization: Basic eA==\r\n",
    "Cookie": b"Connection: close, Cookie\r\nCookie: a=b\r\n",
    "X-Hop": b"Connection: X-Hop\r\nX-Hop: 1\r\n",
    "X-Hop in another case": b"Connection: x-HOP\r\nX-Hop: 1\r\n",
    "X-Hop in a second field": b"Connection: keep-alive\r\nConnection: X-Hop\r\nX-Hop: 1\r\n",
    "X-Hop before the field": b"X-Hop: 1\r\nConnection: X-Hop\r\n",
    "X-Hop behind empty members": b"Connection: , ,X-Hop ,\r\nX-Hop: 1\r\n",
    "a field that is not there": b"Connection: X-Hop\r\n",
}

_WRITTEN_HERE = (
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "Forwarded",
    "X-Real-IP",
    "X-Request-Id",
    "traceparent",
)

_UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "h2c without its settings": b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    "h2c in mixed case": b"Connection: upgrade\r\nUpgrade: H2c\r\n",
    "h2c and websocket": b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n" + _WEBSOCKET,
    "websocket and h2c": b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + _WEBSOCKET,
    "websocket and h2c in two fields": b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + _WEBSOCKET,
    "h2": b"Connection: Upgrade\r\nUpgrade: h2\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "HTTP/2.0": b"Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
    "another protocol": b"Connection: Upgrade\r\nUpgrade: chat\r\n",
    "websocket of a version": b"Connection: Upgrade\r\nUpgrade: websocket/13\r\n" + _WEBSOCKET,
    "websocket with a letter more": b"Connection: Upgrade\r\nUpgrade: websockets\r\n" + _WEBSOCKET,
    "websocket with a high byte": b"Connection: Upgrade\r\nUpgrade: websocket\xa0\r\n" + _WEBSOCKET,
}
_BARE = "RFC 9110 section 7.8: without the other half it asks for nothing; ignored as a hop's own field, or refused"
_REMOVED = "RFC 9110 section 7.6.1: what Connection names goes no further"

CASES = [
    *named("a client's own", [accept(name, request(line)) for name, line in _SPOOFED.items()]),
    *named(
        "a client's own trace",
        [
            accept(name, request(line), why="made here or passed: one of each at most, well formed")
            for name, line in _TRACES.items()
        ],
    ),
    *named(
        "a field of the hop",
        [accept(name, request(line), Arrival(lacks=(name.lower().encode(), b"connection-x"))) for name, line in _HOPS.items()],
    ),
    *named(
        "Connection names",
        [
            accept(name, request(line), Arrival(lacks=(name.split(maxsplit=1)[0].lower().encode(),)), closes=None, why=_REMOVED)
            for name, line in _NAMED.items()
        ],
    ),
    *named(
        "Connection names what is written here",
        [
            accept(
                name, request(b"Connection: " + name.encode() + b"\r\n"), why="what is written here is not the client's to remove"
            )
            for name in _WRITTEN_HERE
        ],
    ),
    *named(
        "Connection names what every reader needs",
        [
            refuse(name, request(b"Connection: " + name.encode() + b"\r\n"))
            for name in ("Host", "Content-Length", "Transfer-Encoding")
        ],
    ),
    *named(
        "an upgrade to",
        [
            refuse(
                name,
                request(lines),
                *_NOT_OFFERED,
                why="RFC 9110 section 7.8 lets it be ignored; nobody asks for it in good faith inside TLS",
            )
            for name, lines in _UPGRADES.items()
        ],
    ),
    accept(
        "an upgrade to websocket",
        request(_UPGRADE + _WEBSOCKET),
        Arrival(has=(b"upgrade: websocket", b"connection: upgrade")),
        closes=None,
    ),
    accept(
        "an upgrade to websocket in other cases",
        request(b"connection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\n" + _WEBSOCKET),
        Arrival(has=(b"connection: upgrade",)),
        closes=None,
    ),
    refuse(
        "websocket with a body",
        request(_UPGRADE + _WEBSOCKET + b"Content-Length: 5\r\n", b"hello"),
        *_NOT_OFFERED,
        why="RFC 6455 section 4.1 has none: a body would be taken for frames",
    ),
    refuse(
        "websocket with chunks",
        request(_UPGRADE + _WEBSOCKET + b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        *_NOT_OFFERED,
    ),
    refuse("websocket by POST", post(_UPGRADE + _WEBSOCKET), *_NOT_OFFERED, 405, why="RFC 6455 section 4.1: GET"),
    either(
        "websocket in HTTP/1.0",
        request(_UPGRADE + _WEBSOCKET, line=b"GET / HTTP/1.0"),
        Arrival(lacks=(b"upgrade",)),
        statuses=_NOT_OFFERED,
        why="RFC 9110 section 7.8: ignored",
    ),
    either(
        "websocket that Connection does not name",
        request(b"Upgrade: websocket\r\n" + _WEBSOCKET),
        Arrival(lacks=(b"upgrade",)),
        statuses=_NOT_OFFERED,
        why=_BARE,
    ),
    either(
        "h2c that Connection does not name",
        request(b"Upgrade: h2c\r\n"),
        Arrival(lacks=(b"upgrade",)),
        statuses=_NOT_OFFERED,
        why=_BARE,
    ),
    either(
        "Connection: upgrade alone",
        request(b"Connection: upgrade\r\n"),
        Arrival(lacks=(b"upgrade",)),
        statuses=_NOT_OFFERED,
        why=_BARE,
    ),
    either(
        "an empty Upgrade",
        request(b"Connection: upgrade\r\nUpgrade:\r\n"),
        Arrival(lacks=(b"upgrade",)),
        statuses=_NOT_OFFERED,
        why=_BARE,
    ),
    accept("Expect: 100-continue", post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello"), POST_HELLO),
    accept("Expect: 100-Continue, in any case", post(b"Expect: 100-Continue\r\nContent-Length: 5\r\n", b"hello"), POST_HELLO),
    accept(
        "Expect: 100-continue with chunks",
        post(b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        POST_HELLO,
    ),
    accept("Expect: 100-continue without a body", request(b"Expect: 100-continue\r\n")),
    accept(
        "Expect: 100-continue with a length of zero",
        post(b"Expect: 100-continue\r\nContent-Length: 0\r\n"),
        Arrival(method=b"POST"),
    ),
    accept(
        "Expect: 100-continue in HTTP/1.0",
        post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello", version=b"1.0"),
        POST_HELLO,
        closes=None,
        why="RFC 9110 section 10.1.1: ignored",
    ),
    *named(
        "Expect is",
        [
            refuse(value, post(b"Expect: " + value.encode() + b"\r\nContent-Length: 5\r\n", b"hello"), 400, 417)
            for value in (
                "200-ok",
                "100",
                "100-continu",
                "100-continuex",
                "100-continue;a=b",
                "100-continue, 200-ok",
                "x 100-continue",
                '"100-continue"',
            )
        ],
    ),
    refuse("Expect twice", post(b"Expect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n", b"hello"), 400, 417),
    refuse("Expect with a fold", post(b"Expect:\r\n 100-continue\r\nContent-Length: 5\r\n", b"hello")),
    refuse("Expect with a NUL", post(b"Expect: 100-continue\x00\r\nContent-Length: 5\r\n", b"hello")),
    accept("Connection: close", request(b"Connection: close\r\n"), closes=True),
    accept("Connection: CLOSE", request(b"connection: CLOSE\r\n"), closes=True),
    accept("Connection: close among others", request(b"Connection: keep-alive, close, x\r\n"), closes=True),
    accept("Connection: close in a second field", request(b"Connection: keep-alive\r\nConnection: close\r\n"), closes=True),
    accept("Connection: keep-alive", request(b"Connection: keep-alive\r\n")),
    accept("an empty Connection", request(b"Connection:\r\n")),
    accept("Connection: not-close", request(b"Connection: not-close, closed\r\n")),
    accept(
        "Proxy-Connection: close closes nothing", request(b"Proxy-Connection: close\r\n"), Arrival(lacks=(b"proxy-connection",))
    ),
    accept("HTTP/1.0", request(line=b"GET / HTTP/1.0"), closes=True),
    accept("HTTP/1.0 and Connection: close", request(b"Connection: close\r\n", line=b"GET / HTTP/1.0"), closes=True),
    accept(
        "HTTP/1.0 and Connection: keep-alive",
        request(b"Connection: keep-alive\r\n", line=b"GET / HTTP/1.0"),
        closes=None,
        why="RFC 9112 section 9.3 lets it be kept",
    ),
    either("a method override", request(b"X-HTTP-Method-Override: DELETE\r\n"), why="the customer's own convention"),
]
