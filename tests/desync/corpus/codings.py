"""Transfer-Encoding: one chunked and nothing else; every other spelling is somebody's chunked and somebody else's nothing."""

from tests.desync.cases import CHUNKED, HELLO_CHUNKS, POST_HELLO, Arrival, accept, named, post, refuse, request

_CL = b"Content-Length: 5\r\n"
_UNKNOWN = (400, 501)

_NOT_CHUNKED = {
    "empty": b"",
    "a comma": b",",
    "chunked behind a comma": b",chunked",
    "chunked behind a comma and a space": b", chunked",
    "chunked before a comma": b"chunked,",
    "chunked twice": b"chunked, chunked",
    "chunked twice without a space": b"chunked,chunked",
    "identity": b"identity",
    "identity, chunked": b"identity, chunked",
    "chunked, identity": b"chunked, identity",
    "gzip": b"gzip",
    "gzip, chunked": b"gzip, chunked",
    "chunked, gzip": b"chunked, gzip",
    "deflate, chunked": b"deflate, chunked",
    "xchunked": b"xchunked",
    "chunkedx": b"chunkedx",
    "chunke": b"chunke",
    "chunk": b"chunk",
    "cow": b"cow",
    "cow, chunked": b"cow, chunked",
    "chunked and a word": b"chunked cow",
    "a word and chunked": b"cow chunked",
    "chunked with a parameter": b"chunked;a=b",
    "chunked with an empty parameter": b"chunked;",
    "chunked with a weight": b"chunked;q=0.1",
    "chunked in double quotes": b'"chunked"',
    "chunked in single quotes": b"'chunked'",
    "chunked in parentheses": b"(chunked)",
    "chunked in brackets": b"[chunked]",
    "chunked with a colon in front": b": chunked",
    "chunked with an escape": b"chun\\ked",
    "chunked percent-encoded": b"%63hunked",
    "chunked with a soft hyphen": b"chun\xadked",
    "chunked with a long s": "chun\u017fked".encode(),
    "chunked with a Kelvin sign": "chun\u212aed".encode(),
    "chunked with a no-break space in front": b"\xa0chunked",
    "chunked with a no-break space behind": b"chunked\xa0",
    "chunked with a next-line byte in front": b"\x85chunked",
    "chunked with a byte order mark": b"\xef\xbb\xbfchunked",
    "chunked with a high byte in front": b"\xffchunked",
    "chunked with a high byte behind": b"chunked\xff",
    "chunked with a dot": b"chunked.",
    "chunked and zero": b"chunked, 0",
    "true": b"true",
    "nothing but white space": b" \t ",
}

_CONTROLS = {
    "a vertical tab in front": b"\x0bchunked",
    "a form feed in front": b"\x0cchunked",
    "a vertical tab behind": b"chunked\x0b",
    "a NUL behind": b"chunked\x00",
    "a NUL in front": b"\x00chunked",
    "a backspace": b"chunkedd\x08",
    "an escape character": b"\x1bchunked",
    "DEL": b"chunked\x7f",
    "a bare CR in front": b"\rchunked",
    "a bare CR behind": b"chunked\r",
    "a bare LF in front": b"\nchunked",
    "a bare LF and a space in front": b"\n chunked",
    "a bare LF behind": b"chunked\n",
    "a fold in front": b"\r\n chunked",
    "a fold with a tab in front": b"\r\n\tchunked",
    "a fold behind": b"chunked\r\n ",
    "a fold in the middle": b"chun\r\n ked",
    "a fold with another coding": b"chunked\r\n , identity",
}

_NAMES = {
    "a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a tab before the colon": b"Transfer-Encoding\t: chunked\r\n",
    "a vertical tab before the colon": b"Transfer-Encoding\x0b: chunked\r\n",
    "a NUL before the colon": b"Transfer-Encoding\x00: chunked\r\n",
    "a high byte before the colon": b"Transfer-Encoding\xff: chunked\r\n",
    "a no-break space before the colon": b"Transfer-Encoding\xa0: chunked\r\n",
    "a space in front": b" Transfer-Encoding: chunked\r\n",
    "a tab in front": b"\tTransfer-Encoding: chunked\r\n",
    "a control character in front": b"\x01Transfer-Encoding: chunked\r\n",
    "a backspace at the end": b"Transfer-Encodingg\x08: chunked\r\n",
    "a space for its hyphen": b"Transfer Encoding: chunked\r\n",
    "an underscore for its hyphen": b"Transfer_Encoding: chunked\r\n",
    "a fold in it": b"Transfer-\r\n Encoding: chunked\r\n",
    "a line break in it": b"Transfer-\r\nEncoding: chunked\r\n",
    "no colon": b"Transfer-Encoding chunked\r\n",
    "an equals sign for the colon": b"Transfer-Encoding=chunked\r\n",
    "quotes around it": b'"Transfer-Encoding": chunked\r\n',
    "a colon in front": b":Transfer-Encoding: chunked\r\n",
    "a comma behind": b"Transfer-Encoding,: chunked\r\n",
    "another field and a bare LF in front": b"A: b\nTransfer-Encoding: chunked\r\n",
    "another field and a bare CR in front": b"A: b\rTransfer-Encoding: chunked\r\n",
    "another field and two CRs in front": b"A: b\r\r\nTransfer-Encoding: chunked\r\n",
    "an empty field in front": b":\r\nTransfer-Encoding: chunked\r\n",
}

CASES = [
    *named(
        "Transfer-Encoding is",
        [
            refuse(name, post(b"Transfer-Encoding: " + value + b"\r\n", HELLO_CHUNKS), *_UNKNOWN, why="RFC 9112 section 6.1")
            for name, value in _NOT_CHUNKED.items()
        ],
    ),
    *named(
        "Transfer-Encoding beside a length is",
        [
            refuse(name, post(_CL + b"Transfer-Encoding: " + value + b"\r\n", b"hello"), *_UNKNOWN)
            for name, value in list(_NOT_CHUNKED.items())[:12]
        ],
    ),
    *named(
        "Transfer-Encoding has",
        [
            refuse(name, post(b"Transfer-Encoding: " + value + b"\r\n", HELLO_CHUNKS), *_UNKNOWN)
            for name, value in _CONTROLS.items()
        ],
    ),
    *named("Transfer-Encoding is named with", [refuse(name, post(line, HELLO_CHUNKS)) for name, line in _NAMES.items()]),
    *named(
        "a length and a Transfer-Encoding named with", [refuse(name, post(_CL + line, b"hello")) for name, line in _NAMES.items()]
    ),
    refuse("two codings, both chunked", post(CHUNKED * 2, HELLO_CHUNKS), *_UNKNOWN),
    refuse("two codings, identity first", post(b"Transfer-Encoding: identity\r\n" + CHUNKED, HELLO_CHUNKS), *_UNKNOWN),
    refuse("two codings, identity last", post(CHUNKED + b"Transfer-Encoding: identity\r\n", HELLO_CHUNKS), *_UNKNOWN),
    refuse("two codings, cow last", post(CHUNKED + b"Transfer-encoding: cow\r\n", HELLO_CHUNKS), *_UNKNOWN),
    refuse("two codings, gzip first", post(b"Transfer-Encoding: gzip\r\n" + CHUNKED, HELLO_CHUNKS), *_UNKNOWN),
    refuse("two codings, an empty one first", post(b"Transfer-Encoding:\r\n" + CHUNKED, HELLO_CHUNKS), *_UNKNOWN),
    refuse("two codings with fields between", post(CHUNKED + b"A: b\r\nTransfer-Encoding: x\r\n", HELLO_CHUNKS), *_UNKNOWN),
    refuse("a coding and its underscored double", post(CHUNKED + b"Transfer_Encoding: identity\r\n", HELLO_CHUNKS), *_UNKNOWN),
    refuse("chunked in HTTP/1.0", post(CHUNKED, HELLO_CHUNKS, version=b"1.0"), why="RFC 9112 section 6.1: faulty framing"),
    refuse("gzip in HTTP/1.0", post(b"Transfer-Encoding: gzip\r\n", b"hello", version=b"1.0"), *_UNKNOWN),
    refuse("chunked on GET in HTTP/1.0", request(CHUNKED, HELLO_CHUNKS, line=b"GET / HTTP/1.0")),
    refuse("a coding named by Connection", post(b"Connection: Transfer-Encoding\r\n" + CHUNKED, HELLO_CHUNKS)),
    refuse(
        "a coding named by Connection beside a length", post(_CL + b"Connection: close, transfer-encoding\r\n" + CHUNKED, b"hello")
    ),
    accept("chunked", post(CHUNKED, HELLO_CHUNKS), POST_HELLO),
    accept("Chunked, as codings are in any case", post(b"Transfer-Encoding: Chunked\r\n", HELLO_CHUNKS), POST_HELLO),
    accept("CHUNKED", post(b"TRANSFER-ENCODING: CHUNKED\r\n", HELLO_CHUNKS), POST_HELLO),
    accept("chunked without a space", post(b"Transfer-Encoding:chunked\r\n", HELLO_CHUNKS), POST_HELLO),
    accept("chunked with white space around", post(b"Transfer-Encoding: \t chunked\t \r\n", HELLO_CHUNKS), POST_HELLO),
    accept("chunked on GET", request(CHUNKED, HELLO_CHUNKS), Arrival(body=b"hello")),
    accept(
        "chunked on DELETE", request(CHUNKED, HELLO_CHUNKS, line=b"DELETE / HTTP/1.1"), Arrival(method=b"DELETE", body=b"hello")
    ),
    accept("chunked and empty", post(CHUNKED, b"0\r\n\r\n"), Arrival(method=b"POST")),
    accept("TE is not Transfer-Encoding", request(b"TE: chunked\r\n"), Arrival(lacks=(b"te",))),
    accept("TE trailers", request(b"TE: trailers\r\nConnection: TE\r\n")),
    accept("Content-Encoding is not Transfer-Encoding", post(b"Content-Encoding: chunked\r\n" + _CL, b"hello"), POST_HELLO),
    accept("a name that only ends like Transfer-Encoding", post(b"X-Transfer-Encoding: chunked\r\n" + _CL, b"hello"), POST_HELLO),
]
