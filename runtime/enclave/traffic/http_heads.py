"""Heads of HTTP/1.1 requests, judged strictly and understood in one way. Pure.

One regular expression refuses what a reader could forgive (bare line feeds, folded lines, odd names), llhttp (httptools) parses, and
the rules about framing, Host and target follow, so that no two readers of one message can disagree about where it ends. Every doubt is
a `Refusal`: the client gets it and the connection ends.
"""

import re
from dataclasses import dataclass, field

import httptools

from runtime.enclave.traffic.refusal import Refusal

Fields = list[tuple[bytes, bytes]]

TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
FIELD_LINES = rb"(?:" + TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*"
_FIELDS = re.compile(FIELD_LINES + rb"\r\n")
# RFC 9112 section 2.2 lets a reader forgive a bare LF, RFC 9110 section 5.5 other controls: the next reader may not, so none is.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
# Methods in upper case only: some servers would take "get" for GET, others not.
_REQUEST_LINE = re.compile(rb"([A-Z][-A-Z0-9_]{0,31}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_LENGTH = re.compile(rb"[0-9]{1,18}")
VALUE = rb"[^ \t\r]*(?:[ \t]+[^ \t\r]+)*"
"""A field's value without the white space around it, found in one pass: a lazy `.*?` before `[ \t]*` takes the square of a long blank."""
_CODING = re.compile(rb"^transfer-encoding:[ \t]*(" + VALUE + rb")[ \t]*\r", re.IGNORECASE | re.MULTILINE)
_HANDSHAKE = (b"upgrade", b"sec-websocket-version", b"sec-websocket-key")
_WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)((?:/[^?#]*)?(?:\?[^#]*)?)", re.IGNORECASE)
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_FRAMING_ALIKE = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request's head as it was understood. `fields` are all but Host and framing, names in lower case; `named` those of Connection.

    `length` is Content-Length in bytes, None when there is none; `chunked` and a length never come together.
    """

    method: bytes
    target: bytes
    host: bytes
    version: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    named: frozenset[bytes]
    length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    is_websocket: bool
    path: str = field(init=False)
    has_body: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.target.partition(b"?")[0].decode("ascii"))
        object.__setattr__(self, "has_body", self.chunked or bool(self.length))

    @property
    def query(self) -> bytes:
        """What follows the first question mark."""
        return self.target.partition(b"?")[2]

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this lower-case name, in order."""
        return [value for key, value in self.fields if key == name]


def find_head(buffer: bytearray, start: int, *, line_max: int, size_max: int) -> int:
    """Where the head at the front of `buffer` ends, 0 when more bytes are needed; bytes before `start` were looked at before.

    Raises `Refusal` as soon as it can never become a head, so that whoever speaks another protocol is told at once.
    """
    if buffer and not 0x41 <= buffer[0] <= 0x5A:
        raise Refusal(400, "bad_request_line", "a request begins with a method in upper case")
    at = buffer.find(b"\r\n\r\n", max(start - 3, 0))
    end = at + 4 if at >= 0 else len(buffer)
    # A carriage return at the very end may yet get its line feed.
    seen = end - 1 if at < 0 and buffer.endswith(b"\r") else end
    if _FORBIDDEN.search(buffer, max(start - 1, 0), seen):
        raise Refusal(400, "bad_head", "a control character or a bare line end in the head")
    if end > line_max and buffer.find(b"\r\n", 0, line_max + 2) < 0:
        raise Refusal(414, "target_too_long", f"the request line is longer than {line_max} bytes")
    if end > size_max:
        raise Refusal(431, "head_too_large", f"the head is larger than {size_max} bytes")
    return end if at >= 0 else 0


def parse_request(head: bytes, *, fields_max: int) -> RequestHead:
    """The head of one request that `find_head` found, ending in its blank line. Raises `Refusal`."""
    line_end = head.index(b"\r\n")
    line = _REQUEST_LINE.fullmatch(head, 0, line_end)
    if line is None:
        raise Refusal(400, "bad_request_line", "the request line is not a method, a target and a version")
    method, target, major, minor = line.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise Refusal(505, "version_not_supported", "versions 1.0 and 1.1 are spoken here")
    if head.count(b"\r\n", line_end) - 2 > fields_max:
        raise Refusal(431, "too_many_fields", f"more than {fields_max} header fields")
    if not _FIELDS.fullmatch(head, line_end + 2):
        raise Refusal(400, "bad_field", "a header field is not name: value, or a line is folded")
    version = b"1." + minor
    fields = _parse(head, target)
    length, chunked = _framing(fields, version)
    host = _host(fields)
    if method == b"CONNECT":
        raise Refusal(501, "connect_not_supported", "this is no forward proxy")
    if method == b"TRACE" and (chunked or length):
        raise Refusal(400, "bad_framing", "TRACE has no body (RFC 9110 section 9.3.8)")
    target = _origin_form(method, target, host)
    named = named_by_connection(fields)
    if named & _FRAMING:
        raise Refusal(400, "bad_connection", "Connection names a field that every reader needs")
    is_websocket = b"upgrade" in named or any(name == b"upgrade" for name, _ in fields)
    if is_websocket and not (
        version == b"1.1" and method == b"GET" and length is None and not chunked and _asks_for_websocket(fields)
    ):
        raise Refusal(501, "upgrade_not_supported", "the only change of protocol known here is to WebSocket")
    expects = [value.lower() for name, value in fields if name == b"expect"]
    if version == b"1.1" and expects not in ([], [b"100-continue"]):
        raise Refusal(417, "expectation_failed", "the only expectation known here is 100-continue")
    return RequestHead(
        method=method,
        target=target,
        host=host,
        version=version,
        fields=tuple(entry for entry in fields if entry[0] not in _FRAMING),
        named=named,
        length=length,
        chunked=chunked,
        keep_alive=version == b"1.1" and b"close" not in named,
        is_websocket=is_websocket,
        expects_continue=version == b"1.1" and bool(expects) and (chunked or bool(length)),
    )


def _asks_for_websocket(fields: Fields) -> bool:
    """Whether these are the fields of an opening handshake (RFC 6455 section 4.1), each of them once."""
    asked = {name: [value for each, value in fields if each == name] for name in _HANDSHAKE}
    options = named_by_connection(fields)
    return (
        b"upgrade" in options
        and [value.lower() for value in asked[b"upgrade"]] == [b"websocket"]
        and asked[b"sec-websocket-version"] == [b"13"]
        and len(asked[b"sec-websocket-key"]) == 1
        and _WEBSOCKET_KEY.fullmatch(asked[b"sec-websocket-key"][0]) is not None
    )


def named_by_connection(fields: Fields) -> frozenset[bytes]:
    """The lower-case names and options that Connection lists (RFC 9110 section 7.6.1)."""
    values = [value for name, value in fields if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b",")) - {b""}


class _Seen:
    """What httptools calls with the parts of a head."""

    __slots__ = ("fields", "url")

    def __init__(self) -> None:
        self.fields: Fields = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))


def _parse(head: bytes, target: bytes) -> Fields:
    """The fields as llhttp reads them, names in lower case. It must agree that this is the head of one request."""
    seen = _Seen()
    try:
        httptools.HttpRequestParser(seen).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # what is to be made of that is decided here
    except httptools.HttpParserInvalidMethodError:
        if head.startswith(b"GET "):
            raise Refusal(400, "bad_request_line", "the request line cannot be read in exactly one way") from None
        return _parse(
            b"GET" + head[head.index(b" ") :], target
        )  # llhttp has a list of methods; which may be used is not its matter
    except httptools.HttpParserError:
        # It takes no white space around this value, which RFC 9110 section 5.5 allows around every one.
        if (tidy := _CODING.sub(rb"Transfer-Encoding: \1\r", head)) != head:
            return _parse(tidy, target)
        if len(codings := _CODING.findall(head)) == 1 and codings[0].lower() != b"chunked":
            raise Refusal(501, "coding_not_supported", "the only transfer coding known here is chunked") from None
        raise Refusal(400, "bad_framing", "the head cannot be read in exactly one way") from None
    if seen.url != target or len(seen.fields) != head.count(b"\r\n") - 2:
        raise Refusal(400, "bad_head", "the head cannot be read in exactly one way")
    return seen.fields


def _framing(fields: Fields, version: bytes) -> tuple[int | None, bool]:
    """(Content-Length, whether chunked) by RFC 9112 section 6.3, with every case that it leaves to the reader refused."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in fields:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif b"_" in name and name.replace(b"_", b"-") in _FRAMING_ALIKE:
            raise Refusal(400, "bad_framing", "a field that some readers take for framing")
    if len(lengths) + len(codings) > 1 or (codings and version == b"1.0") or any(not _LENGTH.fullmatch(value) for value in lengths):
        raise Refusal(400, "bad_framing", "the end of the body can be read in more than one way")
    if codings and codings[0].lower() != b"chunked":
        raise Refusal(501, "coding_not_supported", "the only transfer coding known here is chunked")
    return (int(lengths[0]) if lengths else None), bool(codings)


def _host(fields: Fields) -> bytes:
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Refusal(400, "bad_host", "exactly one Host with a name or address and perhaps a port is needed")
    return hosts[0]


def _origin_form(method: bytes, target: bytes, host: bytes) -> bytes:
    """The target as an origin server gets it (RFC 9112 section 3.2); an absolute one must name the same authority as Host."""
    if absolute := _ABSOLUTE.fullmatch(target):
        if absolute[1].lower() != host.lower():
            raise Refusal(400, "bad_target", "the target and Host name different authorities")
        rest: bytes = absolute[2]
        if not rest and method == b"OPTIONS":
            return b"*"
        target = rest if rest.startswith(b"/") else b"/" + rest
    if (target.startswith(b"/") and b"#" not in target) or (target == b"*" and method == b"OPTIONS"):
        return target
    raise Refusal(400, "bad_target", "the target is neither a path nor an absolute URI of http or https")
