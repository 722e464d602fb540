"""Heads of HTTP/1.1 messages, judged strictly and then rebuilt from what was understood. Pure.

h11 parses; this module refuses what h11 would forgive (bare line feeds, folded lines, lists of lengths, both framings at once), so that
no two readers of one message can disagree about where it ends. Every doubt is a `Refusal`: the client gets it and the connection ends.
"""

import re
from dataclasses import dataclass

import h11

from runtime.enclave.traffic.refusal import Refusal

Fields = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# RFC 9112 section 2.2 lets a reader forgive a bare LF, RFC 9110 section 5.5 other controls: the next reader may not, so none is.
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
# Methods in upper case only: some servers would take "get" for GET, others not.
_REQUEST_LINE = re.compile(rb"([A-Z][-A-Z0-9_]{0,31}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]*)((?:/[^?#]*)?(?:\?[^#]*)?)", re.IGNORECASE)
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request's head as it was understood. `fields` are those that may be handed on, names in lower case, without Host and framing.

    `length` is Content-Length in bytes, None when there is none; `chunked` and a length never come together.
    """

    method: bytes
    target: bytes
    host: bytes
    version: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """What follows the first question mark."""
        return self.target.partition(b"?")[2]

    @property
    def has_body(self) -> bool:
        """Whether at least one byte, or a chunked body, follows the head."""
        return self.chunked or bool(self.length)

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this lower-case name, in order."""
        return [value for key, value in self.fields if key == name]


def find_head(buffer: bytearray, start: int, *, size_max: int) -> int:
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
    if end > size_max:
        if buffer.find(b"\r\n", 0, size_max) < 0:
            raise Refusal(414, "target_too_long", f"the request line is longer than {size_max} bytes")
        raise Refusal(431, "head_too_large", f"the head is larger than {size_max} bytes")
    return end if at >= 0 else 0


def parse_request(connection: h11.Connection, head: bytes, *, fields_max: int) -> RequestHead:
    """The head of one request, ending in its blank line, given also to `connection` (h11, fresh, as server). Raises `Refusal`."""
    lines = head[:-4].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise Refusal(400, "bad_request_line", "the request line is not a method, a target and a version")
    method, target = line[1], line[2]
    if line[3] != b"1" or line[4] not in (b"0", b"1"):
        raise Refusal(505, "version_not_supported", "versions 1.0 and 1.1 are spoken here")
    if len(lines) - 1 > fields_max:
        raise Refusal(431, "too_many_fields", f"more than {fields_max} header fields")
    fields = [_field(line) for line in lines[1:]]
    version = line[3] + b"." + line[4]
    length, chunked = _framing(fields, version)
    host = _host(fields)
    if method == b"CONNECT":
        raise Refusal(501, "connect_not_supported", "this is no forward proxy")
    target = _origin_form(method, target, host)
    _parse_again(connection, head)
    named = _named_by_connection(fields)
    if named & _FRAMING:
        raise Refusal(400, "bad_connection", "Connection names a field that every reader needs")
    if b"upgrade" in named or any(name == b"upgrade" for name, _ in fields):
        raise Refusal(501, "upgrade_not_supported", "no protocol to change to is spoken here")
    expects = [value.lower() for name, value in fields if name == b"expect"]
    if version == b"1.1" and expects not in ([], [b"100-continue"]):
        raise Refusal(417, "expectation_failed", "the only expectation known here is 100-continue")
    return RequestHead(
        method=method,
        target=target,
        host=host,
        version=version,
        fields=tuple((name, value) for name, value in fields if _is_handed_on(name, named)),
        length=length,
        chunked=chunked,
        keep_alive=version == b"1.1" and b"close" not in named,
        expects_continue=version == b"1.1" and bool(expects) and (chunked or bool(length)),
    )


def forwarded_request(head: RequestHead, client: str | None) -> h11.Request:
    """The request for the customer process: what was understood, and where it came from (RFC 7239) as only this side can say it.

    `client` is the address without port from the PROXY header, None when the connection is the parent's own.
    """
    fields: Fields = [(b"host", head.host), *head.fields]
    if head.chunked:
        fields.append((b"transfer-encoding", b"chunked"))
    elif head.length is not None:
        fields.append((b"content-length", b"%d" % head.length))
    forwarded = b'host="%s";proto=https' % head.host
    if client is not None:
        address = client.encode("ascii")
        fields += [(b"x-forwarded-for", address), (b"x-real-ip", address)]
        node = b"[%s]" % address if b":" in address else address
        forwarded = b'for="%s";%s' % (node, forwarded)
    fields += [(b"x-forwarded-host", head.host), (b"x-forwarded-proto", b"https"), (b"forwarded", forwarded)]
    return h11.Request(method=head.method, target=head.target, headers=fields)


def returned_fields(response: h11.Response | h11.InformationalResponse) -> Fields:
    """The header fields of an answer that go back to the client. Transfer-Encoding is made anew by whoever writes the body."""
    raw = response.headers.raw_items()
    named = _named_by_connection([(name.lower(), value) for name, value in raw])
    dropped = _HOP_BY_HOP | named | {b"proxy-connection", b"proxy-authenticate"}
    if response.status_code < 200 or response.status_code == 204:
        dropped |= {b"content-length"}  # RFC 9110 section 8.6
    return [(name, value) for name, value in raw if name.lower() not in dropped]


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise Refusal(400, "bad_field", "a header field is not name: value, or a line is folded")
    return name.lower(), value.strip(b" \t")


def _framing(fields: Fields, version: bytes) -> tuple[int | None, bool]:
    """(Content-Length, whether chunked) by RFC 9112 section 6.3, with every case that it leaves to the reader refused."""
    names = [name.replace(b"_", b"-") for name, _ in fields]
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if (
        names.count(b"content-length") != len(lengths)
        or names.count(b"transfer-encoding") != len(codings)
        or len(lengths) + len(codings) > 1
        or (codings and version == b"1.0")
        or any(not _LENGTH.fullmatch(value) for value in lengths)
    ):
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


def _parse_again(connection: h11.Connection, head: bytes) -> None:
    """h11's own reading. It must agree that this is one request, and it is what its writing side builds the answer on."""
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise Refusal(error.error_status_hint, "bad_head", "the head is not a request of HTTP/1.1") from None
    if not isinstance(event, h11.Request):
        raise Refusal(400, "bad_head", "the head is not a request of HTTP/1.1")


def _named_by_connection(fields: Fields) -> frozenset[bytes]:
    """The lower-case names and options that Connection lists (RFC 9110 section 7.6.1)."""
    values = [value for name, value in fields if name == b"connection"]
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b",")) - {b""}


def _is_handed_on(name: bytes, named: frozenset[bytes]) -> bool:
    if name in named or name in _FRAMING or name == b"expect":
        return False
    # Gateways such as CGI and WSGI write both signs as one, so x_real_ip would pass for ours.
    alike = name.replace(b"_", b"-")
    return not (alike in _HOP_BY_HOP or alike.startswith((b"proxy-", b"x-forwarded")) or alike in (b"forwarded", b"x-real-ip"))
