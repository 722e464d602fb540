"""The header fields that are written here: those of a request on its way to the customer process, those of an answer on its way back.

What is of one connection only is taken away (RFC 9110 section 7.6.1), and what only this side can say is not taken from outside. Pure.
"""

from functools import lru_cache

from runtime.enclave.traffic.http_heads import RequestHead

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy"})


def forwarded_head(head: RequestHead, client: str | None) -> bytes:
    """The head for the customer process: what was understood, and where it came from (RFC 7239) as only this side can say it.

    `client` is the address without port from the PROXY header, None when the connection is the parent's own.
    """
    named = head.named
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (head.method, head.target, head.host)]
    lines += [b"%b: %b\r\n" % entry for entry in head.fields if _is_handed_on(entry[0]) and (not named or entry[0] not in named)]
    if head.chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif head.length is not None:
        lines.append(b"content-length: %d\r\n" % head.length)
    lines.append(_forwarding_fields(client, head.host))
    lines.append(b"\r\n")
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
        or alike in (b"forwarded", b"x-real-ip")
    )
