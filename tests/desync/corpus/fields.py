"""Field lines: names, values, ends and folds (RFC 9112 section 5, RFC 9110 section 5)."""

from tests.desync.cases import Arrival, accept, either, named, post, refuse, request

_CONTROLS = [octet for octet in range(0x20) if octet not in b"\t\r\n"] + [0x7F]
_NO_TOKEN = b'"(),/;<=>?@[\\]{} \t'


def _host_after(fields: bytes) -> bytes:
    return request(host=fields + b"Host: a.example\r\n")


_LINE_ENDS = {
    "a bare LF in all lines": b"GET / HTTP/1.1\nHost: a.example\n\n",
    "a bare LF in one line": b"GET / HTTP/1.1\r\nA: b\nHost: a.example\r\n\r\n",
    "a bare LF in the last line": b"GET / HTTP/1.1\r\nHost: a.example\n\r\n",
    "a bare LF for the empty line": b"GET / HTTP/1.1\r\nHost: a.example\r\n\n",
    "two bare LFs at the end": b"GET / HTTP/1.1\r\nHost: a.example\n\n",
    "a bare CR in one line": b"GET / HTTP/1.1\r\nA: b\rHost: a.example\r\n\r\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\nHost: a.example\r\nA: b\rc\r\n\r\n",
    "a bare CR behind a value": b"GET / HTTP/1.1\r\nHost: a.example\r\r\n\r\n",
    "a bare CR for a value": b"GET / HTTP/1.1\r\nHost: a.example\r\nA:\r\r\n\r\n",
    "a bare CR at the head of a line": b"GET / HTTP/1.1\r\nHost: a.example\r\n\rA: b\r\n\r\n",
    "a bare CR for the empty line": b"GET / HTTP/1.1\r\nHost: a.example\r\n\rXGET /smuggled: HTTP/1.1\r\n\r\n",
    "bare CRs in all lines": b"GET / HTTP/1.1\rHost: a.example\r\r",
    "LF and CR exchanged": b"GET / HTTP/1.1\n\rHost: a.example\n\r\n\r",
    "a bare LF that hides a request": b"GET / HTTP/1.1\r\nHost: a.example\r\nA:\n\nGET /smuggled HTTP/1.1\r\n\r\n",
    "a bare CR that hides a field": b"GET / HTTP/1.1\r\nHost: a.example\r\nA: b\rContent-Length: 44\r\n\r\n",
    "a vertical tab for a line end": b"GET / HTTP/1.1\r\nA: b\x0bHost: a.example\r\n\r\n",
    "a form feed for a line end": b"GET / HTTP/1.1\r\nA: b\x0cHost: a.example\r\n\r\n",
    "a next-line byte for a line end": b"GET / HTTP/1.1\r\nA: b\x85Host: a.example\r\n\r\n",
    "a line separator for a line end": "GET / HTTP/1.1\r\nA: b\u2028Host: a.example\r\n\r\n".encode(),
}

_FOLDS = {
    "behind a value, by a space": request(b"A: b\r\n c\r\n"),
    "behind a value, by a tab": request(b"A: b\r\n\tc\r\n"),
    "behind a name": request(b"A:\r\n b\r\n"),
    "of white space alone": request(b"A: b\r\n \r\n"),
    "of white space alone at the end of the head": request(b"A: b\r\n \t\r\n"),
    "twice": request(b"A: b\r\n c\r\n d\r\n"),
    "by a bare LF": request(b"A: b\n c\r\n"),
    "by a bare CR": request(b"A: b\r c\r\n"),
    "that looks like a field": request(b"A: b\r\n Content-Length: 5\r\n", b"hello"),
    "before the first field": _host_after(b" A: b\r\n"),
    "before the first field, by a tab": _host_after(b"\tA: b\r\n"),
    "in Host": request(host=b"Host: a.example\r\n .evil\r\n"),
    "before Host": request(host=b"Host:\r\n a.example\r\n"),
    "between a name and its colon": request(b"A\r\n : b\r\n"),
    "in Cookie": request(b"Cookie: a=b;\r\n c=d\r\n"),
}

_BAD_NAMES = {
    "empty": b": b\r\n",
    "empty with an empty value": b":\r\n",
    "empty twice": b"::\r\n",
    "only a space": b" : b\r\n",
    "before a space and the colon": b"A : b\r\n",
    "before a tab and the colon": b"A\t: b\r\n",
    "before a CR and the colon": b"A\r: b\r\n",
    "before two spaces and the colon": b"A  : b\r\n",
    "of two words": b"A B: c\r\n",
    "of UTF-8": "Ä: b\r\n".encode(),
    "with a high byte": b"A\xff: b\r\n",
    "with a high byte in front": b"\xffA: b\r\n",
    "with a no-break space": b"A\xa0: b\r\n",
    "with a bare LF": b"A\nB: c\r\n",
    "missing its colon": b"A\r\n",
    "missing its colon but with a value": b"A b\r\n",
    "missing, as a request line": b"GET /smuggled HTTP/1.1\r\n",
    "missing, as a request line with a colon": b"GET http://a.example/smuggled HTTP/1.1\r\n",
}

_FOUND = "RFC 9110 section 5.5: may be kept where it is safe; the next reader may end a line at it"

CASES = [
    *named(
        "a line ends with",
        [
            refuse(name, raw)
            for name, raw in _LINE_ENDS.items()
            if name not in ("a next-line byte for a line end", "a line separator for a line end")
        ],
    ),
    *named("no Host, for a line ends with", [refuse(name, _LINE_ENDS[name]) for name in list(_LINE_ENDS)[-2:]]),
    *named(
        "a fold", [refuse(name, raw, why="RFC 9112 section 5.2: reject, or unfold; nobody folds") for name, raw in _FOLDS.items()]
    ),
    *named("a name is", [refuse(name, request(line)) for name, line in _BAD_NAMES.items()]),
    *named("a first name is", [refuse(name, _host_after(line)) for name, line in list(_BAD_NAMES.items())[:10]]),
    *named(
        "a value has the control character",
        [refuse(f"{octet:#04x}", request(b"A: b%cc\r\n" % octet), why=_FOUND) for octet in _CONTROLS],
    ),
    *named("a name has the control character", [refuse(f"{octet:#04x}", request(b"A%cB: c\r\n" % octet)) for octet in _CONTROLS]),
    *named("a name has the delimiter", [refuse(f"{octet:#04x}", request(b"A%cB: c\r\n" % octet)) for octet in _NO_TOKEN]),
    *named(
        "a value ends with",
        [
            refuse(name, request(b"A: b" + end + b"\r\n"), why=_FOUND)
            for name, end in {
                "a NUL": b"\x00",
                "a vertical tab": b"\x0b",
                "a form feed": b"\x0c",
                "an escape character": b"\x1b",
            }.items()
        ],
    ),
    *named(
        "a value begins with",
        [
            refuse(name, request(b"A:" + start + b"b\r\n"), why=_FOUND)
            for name, start in {
                "a NUL": b"\x00",
                "a vertical tab": b"\x0b",
                "a form feed": b"\x0c",
                "a bare CR": b"\r",
                "a bare LF": b"\n",
            }.items()
        ],
    ),
    refuse("a name and no value, then the end of the head", request(b"A\r\n")),
    refuse("an empty field and a field that it cuts off", request(b":\r\nA: b\r\n")),
    refuse("a request behind a value's NUL", request(b"A: b\x00\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example\r\n")),
    accept("white space around a value is not of it", request(b"A:\t b c \t\r\n"), Arrival(has=(b"a: b c",))),
    accept("a tab in a value", request(b"A: b\tc\r\n"), Arrival(has=(b"a: b\tc",))),
    accept("an empty value", request(b"A:\r\n")),
    accept("a value of white space", request(b"A: \t \r\n")),
    accept("a value of colons", request(b"A: ::\r\n"), Arrival(has=(b"a: ::",))),
    accept("a value that looks like a field", request(b"A: Content-Length: 5\r\n"), Arrival(has=(b"a: Content-Length: 5",))),
    accept("a value of quotes and commas", request(b'A: "b, c", d;e="f\\""\r\n'), Arrival(has=(b'a: "b, c", d;e="f\\""',))),
    accept("bytes past ASCII in a value", request("A: é\r\n".encode()), Arrival(has=("a: é".encode(),))),
    accept("bytes that are no UTF-8 in a value", request(b"A: \xff\x80\r\n"), Arrival(has=(b"a: \xff\x80",))),
    accept("a no-break space at a value's ends is of it", request(b"A: \xa0b\xa0\r\n"), Arrival(has=(b"a: \xa0b\xa0",))),
    accept("a next-line byte at a value's ends is of it", request(b"A: \x85b\x85\r\n"), Arrival(has=(b"a: \x85b\x85",))),
    accept("a name of every octet that a token has", request(b"A!#$%&'*+-.^`|~9: b\r\n"), Arrival(has=(b"a!#$%&'*+-.^`|~9: b",))),
    accept("a name of digits", request(b"1: 2\r\n"), Arrival(has=(b"1: 2",))),
    accept("a field that comes twice, in order", request(b"A: 1\r\nB: 2\r\nA: 3\r\n"), Arrival(has=(b"a: 1", b"a: 3"))),
    accept("two Cookies", request(b"Cookie: a=1\r\nCookie: b=2\r\n")),
    accept("names in any case are one name", request(b"aCCEPT: */*\r\n"), Arrival(has=(b"accept: */*",))),
    accept("Host behind other fields", _host_after(b"A: b\r\n"), Arrival(has=(b"a: b",))),
    accept(
        "fields that browsers send",
        request(
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: text/html,*/*;q=0.8\r\n"
            b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nUpgrade-Insecure-Requests: 1\r\n"
            b'Sec-Fetch-Dest: document\r\nPriority: u=0, i\r\nCookie: a=b; c="d"\r\n'
        ),
        Arrival(has=(b"upgrade-insecure-requests: 1", b"priority: u=0, i")),
    ),
    either(
        "an underscore in a name", request(b"A_B: c\r\n"), why="a token; some servers write - as _, so it may be dropped or refused"
    ),
    either("a name of an underscore", request(b"_: c\r\n"), why="as above"),
    either("Host with an underscore", request(b"Host_: b.example\r\n"), why="as above"),
    refuse("a body's length in a folded field", post(b"A: b\r\n Content-Length: 5\r\nContent-Length: 0\r\n", b"hello")),
]
