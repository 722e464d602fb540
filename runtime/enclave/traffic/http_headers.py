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
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy"})


def request_ids() -> Callable[[], bytes]:
    """Gives names for requests: 32 hex digits, each only once among all workers of all boots. They are no secret and can be guessed."""
    worker, numbers = token_hex(8).encode(), count(1)
    return lambda: b"%b%016x" % (worker, next(numbers))


def identified(shared: bytes, request_id: bytes) -> bytes:
    """One request's head, from what all requests of the same bytes share. A trace that the client did not begin begins here, unsampled."""
    if b"\r\ntraceparent: " in shared:
        return b"%bx-request-id: %b\r\n\r\n" % (shared, request_id)
    return b"%bx-request-id: %b\r\ntraceparent: 00-%b-%b-00\r\n\r\n" % (shared, request_id, request_id, request_id[16:])


def shared_head(head: RequestHead, client: str | None) -> bytes:
    """What was understood, and where it came from (RFC 7239) as only this side can say it, without the end of the head.

    `client` is the address without port from the PROXY header, None when the connection is the parent's own. A client's own
    X-Request-Id goes no further; its trace goes on if it is one.
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
    lines.append(_forwarding_fields(client, head.host))
    return b"".join(lines)


@lru_cache(maxsize=256)
def _forwarding_fields(client: str | None, host: bytes) -> bytes:
    node = by = b""
    if client is not None:
        address = client.encode("ascii")
        node = b"x-forwarded-for: %b\r\nx-real-ip: %b\r\n" % (address, address)
        by = b'for="[%b]";' % address if b":" in address else b'for="%b";' % address
    return b'%bx-forwarded-host: %b\r\nx-forwarded-proto: https\r\nforwarded: %bhost="%b";proto=https\r\n' % (node, host, by, host)


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
