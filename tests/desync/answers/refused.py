"""Answers that are none: the client gets 502, and the connection they came over serves nobody else."""

from tests.desync.answers.cases import EMPTY_POST, answer, named, refused
from tests.desync.cases import post

_FRAMINGS = {
    "two lengths that differ": b"Content-Length: 2\r\nContent-Length: 3\r\n",
    "two lengths that are equal": b"Content-Length: 2\r\nContent-Length: 2\r\n",
    "a list of lengths": b"Content-Length: 2, 2\r\n",
    "a length and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    "an empty length": b"Content-Length:\r\n",
    "a length with a plus sign": b"Content-Length: +2\r\n",
    "a length with a minus sign": b"Content-Length: -2\r\n",
    "a length in hexadecimal": b"Content-Length: 0x2\r\n",
    "a length with a letter": b"Content-Length: 2a\r\n",
    "a length with a space inside": b"Content-Length: 0 2\r\n",
    "a length past 64 bits": b"Content-Length: 18446744073709551618\r\n",
    "a length of 40 digits": b"Content-Length: " + b"9" * 40 + b"\r\n",
    "a length with a NUL": b"Content-Length: 2\x00\r\n",
    "a length with a fold": b"Content-Length:\r\n 2\r\n",
    "a length with a space before its colon": b"Content-Length : 2\r\n",
    "an unknown coding": b"Transfer-Encoding: x\r\n",
    "gzip": b"Transfer-Encoding: gzip\r\n",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked, gzip": b"Transfer-Encoding: chunked, gzip\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "an empty coding": b"Transfer-Encoding:\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "chunked with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "chunked with a no-break space": b"Transfer-Encoding: \xa0chunked\r\n",
    "chunked with a space before its colon": b"Transfer-Encoding : chunked\r\n",
    "chunked behind a bare LF": b"A: b\nTransfer-Encoding: chunked\r\n",
}

_FIELDS = {
    "a bare LF": b"A: b\nSet-Cookie: c\r\n",
    "a bare LF as a line end": b"A: b\n",
    "a bare CR": b"A: b\rSet-Cookie: c\r\n",
    "a bare CR at its end": b"A: b\r\r\n",
    "a NUL": b"A: b\x00c\r\n",
    "a control character": b"A: b\x01c\r\n",
    "an escape character": b"A: \x1b[31m\r\n",
    "a vertical tab": b"A: b\x0bc\r\n",
    "DEL": b"A: b\x7fc\r\n",
    "a fold": b"A: b\r\n c\r\n",
    "a fold that hides a field": b"A: b\r\n Set-Cookie: c\r\n",
    "no name": b": b\r\n",
    "no colon": b"A\r\n",
    "a space before its colon": b"A : b\r\n",
    "a space in its name": b"A B: c\r\n",
    "a NUL in its name": b"A\x00: b\r\n",
    "a high byte in its name": b"A\xff: b\r\n",
    "a space in front": b" A: b\r\n",
}

_LINES = {
    "another protocol": b"SSH-2.0-OpenSSH_9.9",
    "a request": b"GET / HTTP/1.1",
    "no protocol": b"200 OK",
    "HTTP/2.0": b"HTTP/2.0 200 OK",
    "HTTP/0.9": b"HTTP/0.9 200 OK",
    "HTTP/1.10": b"HTTP/1.10 200 OK",
    "http in lower case": b"http/1.1 200 OK",
    "no status": b"HTTP/1.1",
    "an empty status": b"HTTP/1.1  OK",
    "a status of two digits": b"HTTP/1.1 20 OK",
    "a status of four digits": b"HTTP/1.1 2000 OK",
    "a status of letters": b"HTTP/1.1 abc OK",
    "a status with a sign": b"HTTP/1.1 +20 OK",
    "a status below 100": b"HTTP/1.1 099 OK",
    "a status of zero": b"HTTP/1.1 000 OK",
    "two spaces before the status": b"HTTP/1.1  200 OK",
    "a tab before the status": b"HTTP/1.1\t200 OK",
    "a NUL in the reason": b"HTTP/1.1 200 O\x00K",
    "a bare CR in the reason": b"HTTP/1.1 200 O\rK",
    "a bare LF in the reason": b"HTTP/1.1 200 O\nK",
    "a control character in the reason": b"HTTP/1.1 200 O\x01K",
    "a space in front": b" HTTP/1.1 200 OK",
    "an empty line in front": b"\r\nHTTP/1.1 200 OK",
    "a NUL in front": b"\x00HTTP/1.1 200 OK",
}

_ENDS = {
    "before anything": b"",
    "within the status line": b"HTTP/1.1 20",
    "behind the status line": b"HTTP/1.1 200 OK\r\n",
    "within a field": b"HTTP/1.1 200 OK\r\nContent-Le",
    "before the empty line": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    "behind an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}

_SAFE = "RFC 9110 section 5.5: a field of an answer is not the place for it, and no program that is in order writes it"


CASES = [
    *named(
        "framed by",
        [
            refused(name, answer(fields), why="RFC 9112 section 6.3: 502 where a gateway is in doubt")
            for name, fields in _FRAMINGS.items()
        ],
    ),
    *named(
        "a field has", [refused(name, answer(b"Content-Length: 2\r\n" + fields), why=_SAFE) for name, fields in _FIELDS.items()]
    ),
    *named("a first line is", [refused(name, answer(line=line)) for name, line in _LINES.items()]),
    *named(
        "an interim answer has",
        [
            refused(name, b"HTTP/1.1 103 Early Hints\r\n" + fields + b"\r\n" + answer())
            for name, fields in list(_FIELDS.items())[:6]
        ],
    ),
    # By POST: a GET is asked again over another connection when the one that was kept ends before any byte.
    *named("the connection ends", [refused(name, answer, closes=True, request=EMPTY_POST) for name, answer in _ENDS.items()]),
    *named(
        "framed by, and whole by its chunks,",
        [
            refused(name, answer(fields, b"2\r\nok\r\n0\r\n\r\n"))
            for name, fields in {
                "chunks and a short length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
                "a long length and chunks": b"Content-Length: 100\r\nTransfer-Encoding: chunked\r\n",
                "chunks and the length of the coding": b"Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
                "chunks and an empty length": b"Transfer-Encoding: chunked\r\nContent-Length:\r\n",
                "a length past 64 bits and chunks": b"Content-Length: 99999999999999999999\r\nTransfer-Encoding: chunked\r\n",
            }.items()
        ],
    ),
    refused(
        "lines that end in bare LFs", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", why="RFC 9112 section 2.2 lets a reader take it"
    ),
    refused("the empty line is a bare LF", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"),
    refused("a head of 1 MiB in one field", answer(b"A: " + b"b" * (1 << 20) + b"\r\n")),
    refused("a head of 1 MiB in many fields", answer(b"A: b\r\n" * 175000)),
    refused("a status line of 1 MiB", answer(line=b"HTTP/1.1 200 " + b"a" * (1 << 20))),
    refused("an interim head of 1 MiB", b"HTTP/1.1 103 X\r\n" + b"A: b\r\n" * 175000 + b"\r\n" + answer()),
    refused("1 MiB and no line", b"a" * (1 << 20)),
    refused("TLS", b"\x15\x03\x03\x00\x02\x02\x46", closes=True),
    refused("a body and no head, as HTTP/0.9", b"<html>hello</html>", closes=True),
    refused(
        "101 that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    ),
    refused(
        "101 to a POST",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        request=post(b"", b"").replace(b" / ", b" /scripted "),
    ),
    refused("101 in HTTP/1.0", b"HTTP/1.0 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    refused("chunks in HTTP/1.0", answer(b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n0\r\n\r\n", line=b"HTTP/1.0 200 OK")),
]
