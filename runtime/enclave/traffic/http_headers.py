"""The header fields that are written here: those of a request on its way to the customer process, those of an answer on its way back.

What is of one connection only is taken away (RFC 9110 section 7.6.1), and what only this side can say is not taken from outside. Pure.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from secrets import token_hex

from runtime.enclave.traffic.http_heads import RequestHead

_TRACE = re.compile(rb"(?!.{3}0{32})(?!.{36}0{16})00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""A traceparent (W3C Trace Context, section 3.2); neither of its two names is all zeros."""
_REQUEST_ID = re.compile(rb"[-._~A-Za-z0-9]{1,128}")
_LISTS = frozenset({b"forwarded", b"x-forwarded-for"})
_FORWARDING = _LISTS | {b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy"})


def request_ids() -> Callable[[], bytes]:
    """Gives names for requests: 32 hex digits, each only once among all workers of all boots. They are no secret and can be guessed."""
    worker, numbers = token_hex(8).encode(), count(1)
    return lambda: b"%b%016x" % (worker, next(numbers))


def identified(shared: bytes, request_id: bytes, trace: bytes) -> bytes:
    """One request's head, from what all requests of the same bytes share. A trace that the client did not begin begins here, unsampled.

    `trace` is what `request_ids` gave for this request.
    """
    if b"\r\ntraceparent: " in shared:
        return b"%bx-request-id: %b\r\n\r\n" % (shared, request_id)
    return b"%bx-request-id: %b\r\ntraceparent: 00-%b-%b-00\r\n\r\n" % (shared, request_id, trace, trace[16:])


def given_request_id(head: RequestHead, trusted: frozenset[bytes]) -> bytes | None:
    """The name that a trusted client gave its request, None when it gave none that can stand in a log as it is."""
    if b"x-request-id" not in trusted:
        return None
    given = head.values(b"x-request-id")
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else None


def shared_head(head: RequestHead, client: str | None, trusted: frozenset[bytes] = frozenset()) -> bytes:
    """What was understood, and where it came from (RFC 7239) as only this side can say it, without the end of the head.

    `client` is the address without port from the PROXY header, None when the connection is the parent's own. A client's own
    X-Request-Id goes no further; its trace goes on if it is one. Of the forwarding fields those in `trusted` are believed.
    """
    named = head.named
    traces = head.values(b"traceparent")
    if traces and (len(traces) > 1 or not _TRACE.fullmatch(traces[0])):
        named = named | {b"traceparent", b"tracestate"}
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (head.method, head.target, head.host)]
    lines += [b"%b: %b\r\n" % entry for entry in head.fields if _is_handed_on(entry[0]) and (not named or entry[0] not in named)]
    if head.is_websocket:
        lines.append(b"connection: upgrade\r\nupgrade: websocket\r\n")
    elif head.chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif head.length is not None:
        lines.append(b"content-length: %d\r\n" % head.length)
    lines.append(_believing(head, client, trusted) if trusted else _forwarding_fields(client, head.host))
    return b"".join(lines)


@lru_cache(maxsize=256)
def _forwarding_fields(client: str | None, host: bytes) -> bytes:
    return _lines(_ours(client, host))


def _ours(client: str | None, host: bytes) -> dict[bytes, bytes]:
    """The forwarding fields as this side knows them. That the address is the parent's word is what `by` says."""
    fields, node = {}, b""
    if client is not None:
        address = client.encode("ascii")
        fields = {b"x-forwarded-for": address, b"x-real-ip": address}
        node = b'for="%b";by=_parent;' % (b"[%b]" % address if b":" in address else address)
    return fields | {
        b"x-forwarded-host": host,
        b"x-forwarded-proto": b"https",
        b"forwarded": b'%bhost="%b";proto=https' % (node, host),
    }


def _believing(head: RequestHead, client: str | None, trusted: frozenset[bytes]) -> bytes:
    """Lists are continued, as each hop does; a single value goes on in the place of ours, and two of them are none."""
    fields = _ours(client, head.host)
    for name in trusted & _FORWARDING:
        given = [value for value in head.values(name) if value]
        if name in _LISTS:
            fields[name] = b", ".join((*given, *([fields[name]] if name in fields else [])))
        elif len(given) == 1:
            fields[name] = given[0]
    return _lines({name: value for name, value in fields.items() if value})


def _lines(fields: dict[bytes, bytes]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields.items())


@lru_cache(maxsize=1024)
def _is_handed_on(name: bytes) -> bool:
    # Gateways such as CGI and WSGI write both signs as one, so x_real_ip would pass for ours.
    alike = name.replace(b"_", b"-")
    return not (
        name == b"expect"
        or alike in _HOP_BY_HOP
        or alike.startswith((b"proxy-", b"x-forwarded"))
        or alike in (b"forwarded", b"x-real-ip", b"x-request-id")
        or (alike in (b"traceparent", b"tracestate") and alike != name)
    )
