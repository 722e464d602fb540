"""The chunked coding: sizes, extensions, ends and trailers (RFC 9112 section 7.1)."""

from tests.desync.cases import CHUNKED, POST_HELLO, Arrival, accept, chunked, either, named, post, refuse

_END = b"\r\nhello\r\n0\r\n\r\n"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"

_NO_SIZE = {
    "empty": b"",
    "a plus sign": b"+5",
    "a minus sign": b"-5",
    "0x in front": b"0x5",
    "0X in front": b"0X5",
    "an underscore": b"0_5",
    "a space in front": b" 5",
    "a tab in front": b"\t5",
    "a space behind": b"5 ",
    "a tab behind": b"5\t",
    "a space in the middle": b"0 5",
    "a bare CR behind": b"5\r",
    "a NUL behind": b"5\x00",
    "a vertical tab behind": b"5\x0b",
    "a letter behind": b"5g",
    "a letter in front": b"g5",
    "an h as assemblers write it": b"5h",
    "quotes": b'"5"',
    "a comma": b"5,",
    "a comma and another size": b"5,5",
    "a dot": b"5.",
    "an equals sign": b"5=5",
    "a colon": b"5:",
    "a high byte behind": b"5\xff",
    "a no-break space behind": b"5\xa0",
    "Arabic-Indic": "\u0665".encode(),
    "seventeen digits": b"10000000000000005",
    "2 to the 64 and five": b"10000000000000005",
    "2 to the 128 and five": b"100000000000000000000000000000005",
    "the largest of 64 bits": b"ffffffffffffffff",
    "a thousand zeros in front": b"0" * 1000 + b"5",
}

_BAD_EXTENSIONS = {
    "a bare LF in it": b";a\nb",
    "a bare LF at its end": b";a\n",
    "a bare CR in it": b";a\rb",
    "a bare CR at its end": b";a\r",
    "a bare CR before the semicolon": b"\r;a",
    "a NUL in it": b";a\x00b",
    "a control character in it": b";a\x01",
    "a space and no semicolon": b" a",
    "a slash for the semicolon": b"/a",
    "a quoted value without end": b';a="b',
    "a quoted value with a bare CR": b';a="b\rc"',
    "a quoted value with a bare LF": b';a="b\nc"',
    "a quoted value with a NUL": b';a="\x00"',
    "something behind a quoted value": b';a="b"c',
    "no name": b";",
    "no name but a value": b";=b",
    "no name but spaces": b"; ",
    "two semicolons": b";;a",
    "a space in its name": b";a b",
    "no value behind an equals sign": b";a=",
    "64 KiB": b";" + b"a" * 65536,
    "64 KiB of small ones": b";a=b" * 16384,
}

_GOOD_EXTENSIONS = {
    "a name": b";a",
    "a name and a value": b";a=b",
    "a quoted value": b';a="b c"',
    "a quoted value with a semicolon": b';a="b;c=d"',
    "a quoted value with an escaped quote": b';a="b\\"c"',
    "a quoted value that looks like a line": b';a="5 hello 0"',
    "a quoted value with high bytes": b';a="\xc3\xa9"',
    "two": b";a=b;c=d",
    "one of 100 bytes": b";a=" + b"b" * 97,
}

_FORBIDDEN_TRAILERS = {
    "Content-Length": b"Content-Length: 3\r\n",
    "Transfer-Encoding": b"Transfer-Encoding: chunked\r\n",
    "Host": b"Host: b.example\r\n",
    "Connection": b"Connection: close\r\n",
    "Authorization": b"Authorization: Basic eA==\r\n",
    "Cookie": b"Cookie: a=b\r\n",
    "X-Forwarded-For": b"X-Forwarded-For: 127.0.0.1\r\n",
    "X-Real-IP": b"X-Real-IP: 127.0.0.1\r\n",
    "Forwarded": b"Forwarded: for=127.0.0.1\r\n",
    "X-Request-Id": b"X-Request-Id: spoofed\r\n",
    "Trailer": b"Trailer: x\r\n",
    "Upgrade": b"Upgrade: websocket\r\n",
    "Expect": b"Expect: 100-continue\r\n",
    "Content-Length by an underscore": b"Content_Length: 3\r\n",
}
_DROPPED = "RFC 9110 section 6.5.1: such a field has no meaning in trailers; it is dropped, or the message refused"

_BAD_TRAILERS = {
    "no colon": b"X\r\n",
    "a request line": b"GET /smuggled HTTP/1.1\r\n",
    "a fold": b"X: 1\r\n 2\r\n",
    "a fold in front": b" X: 1\r\n",
    "a space before the colon": b"X : 1\r\n",
    "no name": b": 1\r\n",
    "a bare LF": b"X: 1\nY: 2\r\n",
    "a bare LF as its end": b"X: 1\n",
    "a bare CR": b"X: 1\rY: 2\r\n",
    "a NUL": b"X: \x00\r\n",
    "a NUL in its name": b"X\x00: 1\r\n",
    "a control character": b"X: \x01\r\n",
    "a high byte in its name": b"X\xff: 1\r\n",
    "128 KiB in many": b"X: 1\r\n" * 20000,
    "64 KiB in one": b"X: " + b"a" * 65536 + b"\r\n",
}
_LARGE = (400, 413, 431)

CASES = [
    *named("a chunk's size is", [refuse(name, chunked(size + _END), *_LARGE) for name, size in _NO_SIZE.items()]),
    *named(
        "the second chunk's size is",
        [refuse(name, chunked(b"1\r\nX\r\n" + size + _END), *_LARGE) for name, size in list(_NO_SIZE.items())[:16]],
    ),
    *named("a chunk's extension has", [refuse(name, chunked(b"5" + ext + _END), *_LARGE) for name, ext in _BAD_EXTENSIONS.items()]),
    *named(
        "the last chunk's extension has",
        [refuse(name, chunked(b"5\r\nhello\r\n0" + ext + b"\r\n\r\n"), *_LARGE) for name, ext in list(_BAD_EXTENSIONS.items())[:8]],
    ),
    *named(
        "a chunk's extension is", [accept(name, chunked(b"5" + ext + _END), POST_HELLO) for name, ext in _GOOD_EXTENSIONS.items()]
    ),
    either(
        "a chunk's extension has white space around it",
        chunked(b"5 ;a" + _END),
        POST_HELLO,
        why="RFC 9112 section 7.1.1 has it for reading only (BWS)",
    ),
    either("a chunk's extension has white space around its value", chunked(b"5; a = b" + _END), POST_HELLO, why="BWS too"),
    *named(
        "a trailer that no trailer may be is",
        [
            either(
                name,
                chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n"),
                Arrival(method=b"POST", body=b"hello", lacks=(line.partition(b":")[0].lower(),)),
                why=_DROPPED,
            )
            for name, line in _FORBIDDEN_TRAILERS.items()
            if name not in ("Host", "X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Request-Id", "Transfer-Encoding", "Connection")
        ],
    ),
    *named(
        "a trailer that is written here is",
        [
            either(name, chunked(b"5\r\nhello\r\n0\r\n" + _FORBIDDEN_TRAILERS[name] + b"\r\n"), POST_HELLO, why=_DROPPED)
            for name in ("Host", "X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Request-Id", "Transfer-Encoding", "Connection")
        ],
    ),
    *named(
        "a trailer has",
        [refuse(name, chunked(b"5\r\nhello\r\n0\r\n" + lines + b"\r\n"), *_LARGE) for name, lines in _BAD_TRAILERS.items()],
    ),
    accept("a trailer", chunked(b"5\r\nhello\r\n0\r\nX-Digest: abc\r\n\r\n"), POST_HELLO),
    accept(
        "a trailer that Trailer names",
        post(b"Trailer: X-Digest\r\n" + CHUNKED, b"5\r\nhello\r\n0\r\nX-Digest: abc\r\n\r\n"),
        POST_HELLO,
    ),
    accept("ten trailers", chunked(b"5\r\nhello\r\n0\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(10)) + b"\r\n"), POST_HELLO),
    accept("an empty trailer", chunked(b"5\r\nhello\r\n0\r\nX-Digest:\r\n\r\n"), POST_HELLO),
    accept("chunk sizes in upper case", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), Arrival(method=b"POST", body=b"0123456789")),
    accept("chunk sizes in lower case", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), Arrival(method=b"POST", body=b"0123456789")),
    accept("chunk sizes with zeros in front", chunked(b"00005\r\nhello\r\n0\r\n\r\n"), POST_HELLO),
    accept("a last chunk of three zeros", chunked(b"5\r\nhello\r\n000\r\n\r\n"), POST_HELLO),
    accept("many chunks", chunked(b"1\r\nh\r\n1\r\ne\r\n2\r\nll\r\n1\r\no\r\n0\r\n\r\n"), POST_HELLO),
    accept("a thousand chunks", chunked(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"), Arrival(method=b"POST", body=b"x" * 1000)),
    accept("a chunk of line ends", chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), Arrival(method=b"POST", body=b"\r\n\r\n")),
    accept(
        "a chunk that looks like the last one", chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), Arrival(method=b"POST", body=b"0\r\n\r\n")
    ),
    accept(
        "a chunk that looks like a request",
        chunked(b"2b\r\n" + _SMUGGLED + b"\r\n0\r\n\r\n"),
        Arrival(method=b"POST", body=_SMUGGLED),
    ),
    accept(
        "a chunk of 64 KiB", chunked(b"10000\r\n" + b"x" * 65536 + b"\r\n0\r\n\r\n"), Arrival(method=b"POST", body=b"x" * 65536)
    ),
    refuse("a chunk longer than its size", chunked(b"4\r\nhello\r\n0\r\n\r\n")),
    refuse("a chunk much longer than its size", chunked(b"1\r\n" + _SMUGGLED + b"\r\n0\r\n\r\n")),
    refuse("a chunk shorter than its size", chunked(b"6\r\nhello\r\n0\r\n\r\n")),
    refuse("a chunk without a line end", chunked(b"5\r\nhello0\r\n\r\n")),
    refuse("a chunk that ends in a bare LF", chunked(b"5\r\nhello\n0\r\n\r\n")),
    refuse("a chunk that ends in a bare CR", chunked(b"5\r\nhello\r0\r\n\r\n")),
    refuse("a chunk that ends in two others", chunked(b"5\r\nhelloXX0\r\n\r\n")),
    refuse("a chunk that ends in LF and CR", chunked(b"5\r\nhello\n\r0\r\n\r\n")),
    refuse("a chunk's line that ends in a bare LF", chunked(b"5\nhello\r\n0\r\n\r\n")),
    refuse("a chunk's line that ends in a bare CR", chunked(b"5\rhello\r\n0\r\n\r\n")),
    refuse("a chunk's line that ends in CR and another", chunked(b"5\rXhello\r\n0\r\n\r\n")),
    refuse("an empty line between chunks", chunked(b"5\r\nhello\r\n\r\n0\r\n\r\n")),
    refuse("an empty line before the first chunk", chunked(b"\r\n5\r\nhello\r\n0\r\n\r\n")),
    refuse("a last chunk that ends in a bare LF", chunked(b"5\r\nhello\r\n0\n\r\n")),
    refuse("a last chunk and a bare LF behind it", chunked(b"5\r\nhello\r\n0\r\n\n")),
    refuse("a last chunk and bare LFs", chunked(b"5\r\nhello\r\n0\n\n")),
    refuse("a last chunk and two other bytes", chunked(b"5\r\nhello\r\n0\r\nXX")),
    refuse("a last chunk and a request without an empty line", chunked(b"5\r\nhello\r\n0\r\n" + _SMUGGLED)),
    refuse("a last chunk with a sign", chunked(b"5\r\nhello\r\n-0\r\n\r\n")),
    refuse("a last chunk in hexadecimal", chunked(b"5\r\nhello\r\n0x0\r\n\r\n")),
    refuse("no chunks but a body", chunked(b"hello world\r\n\r\n")),
    refuse("no chunks but a request", chunked(_SMUGGLED)),
    refuse("two last chunks with an extension between", chunked(b"0\r\n\r\n0\r\n\r\n"), after=(Arrival(method=b"POST"),)),
    refuse("an invalid chunk with a request behind it", chunked(b"INVALID\r\n" + _SMUGGLED)),
    refuse("a NUL behind the last chunk", chunked(b"5\r\nhello\r\n0\r\n\r\n\x00"), after=(POST_HELLO,)),
    refuse("a size of all sorts that hides a request", chunked(b"0_2b\r\n" + _SMUGGLED + b"\r\n0\r\n\r\n")),
    refuse("terminator, bare CR and a request", chunked(b"5\r\r;ABCD\r\n2b\r\n" + _SMUGGLED + b"\r\n0\r\n\r\n")),
]
