"""A second reader of HTTP/1.1 (RFC 9112), as strict as the grammar, that shares no code and no method with the one under test.

It walks a cursor over whole byte strings and compares octet sets; there is no regular expression and no state machine in it. What
the RFC lets a reader forgive is a `Doubt` here, apart from one empty line before a request, leading zeros and chunk extensions.
"""

from contextlib import suppress
from dataclasses import dataclass

Fields = tuple[tuple[bytes, bytes], ...]

_DIGITS = b"0123456789"
_HEX = _DIGITS + b"abcdefABCDEF"
_TOKEN = _DIGITS + b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'*+-.^_`|~"
_VISIBLE = bytes(range(0x21, 0x7F))
_TEXT = b"\t " + _VISIBLE + bytes(range(0x80, 0x100))
_HOST = _TOKEN + b":[]"


class Doubt(Exception):
    """These bytes are no message, or may be read as more than one."""


class Incomplete(Exception):
    """A message, or its end, is missing bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `start` is the three parts of its first line; names are in lower case; `framing` is none, length, chunked or close."""

    start: tuple[bytes, bytes, bytes]
    fields: Fields
    framing: str
    body: bytes
    trailers: Fields

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    @property
    def status(self) -> int:
        return int(self.start[1])


@dataclass(slots=True)
class _Cursor:
    data: bytes
    at: int = 0

    def line(self) -> bytes:
        """A line without its CRLF; other line ends and controls in it are doubts."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Incomplete("a line has no end")
        if end == self.at or self.data[end - 1] != 13:
            raise Doubt("a bare line feed")
        line = self.data[self.at : end - 1]
        if not _only(line, _TEXT):
            raise Doubt(f"a control character in {line[:80]!r}")
        self.at = end + 1
        return line

    def exactly(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise Incomplete("a body has no end")
        self.at += size
        return self.data[self.at - size : self.at]

    def fields(self) -> Fields:
        found = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            if not (colon and name and _only(name, _TOKEN)):
                raise Doubt(f"no field: {line[:80]!r}")
            found.append((name.lower(), value.strip(b" \t")))
        return tuple(found)


def read_request(data: bytes, at: int = 0) -> tuple[Message, int]:
    """The request that begins at `at`, and where the next one begins. Raises `Doubt` and `Incomplete`."""
    cursor = _Cursor(data, at)
    if data[at : at + 2] == b"\r\n":
        cursor.at += 2
    parts = cursor.line().split(b" ")
    if len(parts) != 3:
        raise Doubt("a request line has three parts")
    method, target, version = parts
    if not (method and _only(method, _TOKEN)):
        raise Doubt("no method")
    if not (target and _only(target, _VISIBLE)):
        raise Doubt("no target")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Doubt("another version")
    fields = cursor.fields()
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1") or not all(host and _only(host, _HOST) for host in hosts):
        raise Doubt("not one host")
    _check_target(method, target, hosts[0] if hosts else b"")
    framing, body, trailers = _body(cursor, fields, version, until_end=False)
    return Message(start=(method, target, version), fields=fields, framing=framing, body=body, trailers=trailers), cursor.at


def read_requests(data: bytes) -> tuple[list[Message], str | None]:
    """As many requests as there are, and what ended the reading: None at the very end of the bytes."""
    found: list[Message] = []
    at = 0
    while at < len(data):
        try:
            message, at = read_request(data, at)
        except (Doubt, Incomplete) as error:
            return found, f"{type(error).__name__.lower()}: {error}"
        found.append(message)
    return found, None


def read_answer(data: bytes, at: int, *, method: bytes, ended: bool, sloppy: bool = False) -> tuple[Message, int]:
    """The answer, final or not, to a request of `method`; `ended` tells that no more bytes will come.

    `sloppy` forgives what programs get wrong without a doubt about what they mean: no space behind the status, and fields that frame a
    body where there is none.
    """
    cursor = _Cursor(data, at)
    line = cursor.line()
    version, _, rest = line.partition(b" ")
    code, space, reason = rest[:3], rest[3:4], rest[4:]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not _only(code, _DIGITS) or code[:1] == b"0":
        raise Doubt(f"no status line: {line[:80]!r}")
    if space != b" " and not (sloppy and line == version + b" " + code):
        raise Doubt("no space behind the status")
    fields = cursor.fields()
    start = (version, code, reason)
    names = [name for name, _ in fields]
    if code[:1] == b"1" or code == b"204":
        if not sloppy and (b"content-length" in names or b"transfer-encoding" in names):
            raise Doubt("a body for an answer that has none")
        return Message(start=start, fields=fields, framing="none", body=b"", trailers=()), cursor.at
    if method == b"HEAD" or code == b"304":
        with suppress(Incomplete):
            _body(_Cursor(b""), fields, version, until_end=True)  # its framing must be in order all the same
        return Message(start=start, fields=fields, framing="none", body=b"", trailers=()), cursor.at
    framing, body, trailers = _body(cursor, fields, version, until_end=True)
    if framing == "close" and not ended:
        raise Incomplete("an answer that ends with its connection")
    return Message(start=start, fields=fields, framing=framing, body=body, trailers=trailers), cursor.at


def _body(cursor: _Cursor, fields: Fields, version: bytes, *, until_end: bool) -> tuple[str, bytes, Fields]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Doubt("more than one framing")
    if codings:
        if version == b"HTTP/1.0" or codings[0].lower() != b"chunked":
            raise Doubt("a coding that is not spoken")
        return _chunks(cursor)
    if lengths:
        if not lengths[0] or len(lengths[0]) > 18 or not _only(lengths[0], _DIGITS):
            raise Doubt("no length")
        return "length", cursor.exactly(int(lengths[0])), ()
    if until_end:
        return "close", cursor.exactly(len(cursor.data) - cursor.at), ()
    return "none", b"", ()


def _chunks(cursor: _Cursor) -> tuple[str, bytes, Fields]:
    body = b""
    while True:
        line = cursor.line()
        digits = len(line) - len(line.lstrip(_HEX))
        if not 0 < digits <= 16:
            raise Doubt(f"no chunk size: {line[:80]!r}")
        _check_extensions(line[digits:])
        size = int(line[:digits], 16)
        if size == 0:
            return "chunked", body, cursor.fields()
        body += cursor.exactly(size)
        if cursor.exactly(2) != b"\r\n":
            raise Doubt("a chunk that is longer than its size")


def _check_extensions(rest: bytes) -> None:
    """RFC 9112 section 7.1.1: *( BWS ";" BWS name [ BWS "=" BWS value ] )."""
    while rest:
        after = rest.lstrip(b" \t")
        if not after.startswith(b";"):
            raise Doubt("something behind a chunk's size")
        rest = _without_token(after[1:].lstrip(b" \t"))
        value = rest.lstrip(b" \t")
        if not value.startswith(b"="):
            continue
        value = value[1:].lstrip(b" \t")
        rest = _without_quoted(value[1:]) if value.startswith(b'"') else _without_token(value)


def _without_token(data: bytes) -> bytes:
    rest = data.lstrip(_TOKEN)
    if rest == data:
        raise Doubt("no token in a chunk's extension")
    return rest


def _without_quoted(data: bytes) -> bytes:
    at = 0
    while at < len(data):
        if data[at] == 0x22:
            return data[at + 1 :]
        at += 2 if data[at] == 0x5C else 1
    raise Doubt("a quoted string without end in a chunk's extension")


def _check_target(method: bytes, target: bytes, host: bytes) -> None:
    if origin_form(method, target, host) is None:
        raise Doubt(f"no target: {target[:80]!r}")


def origin_form(method: bytes, target: bytes, host: bytes) -> bytes | None:
    """The target as an origin server is to see it; None when it has none."""
    if method == b"CONNECT" or b"#" in target:
        return None
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    scheme, found, rest = target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return None
    size = min(at for at in (rest.find(b"/"), rest.find(b"?"), len(rest)) if at >= 0)
    if rest[:size].lower() != host.lower():
        return None
    if rest[size:]:
        return rest[size:] if rest[size:].startswith(b"/") else b"/" + rest[size:]
    return b"*" if method == b"OPTIONS" else b"/"


def _only(data: bytes, allowed: bytes) -> bool:
    return not data.translate(None, allowed)
