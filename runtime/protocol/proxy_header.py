"""The PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2): who the client of a relayed connection was.

The parent writes the header, the enclave reads it. What it says is the parent's word: good for logs and forwarding headers, never
for a decision that protects the enclave. Addresses are TCP over IPv4 or IPv6; extensions (TLVs) are passed over.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from runtime.protocol.buffer import Cursor
from runtime.protocol.errors import LocalProtocolError, Malformed

PREFIX_SIZE = 16
"""Bytes of the signature, version, command, family and length: what to read first."""

HEADER_MAX = 536
"""Bytes of a whole header: 16, the largest address block (216) and room for extensions (304)."""

Address: TypeAlias = tuple[str, int]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """The client's address and the one it connected to; both None for LOCAL (a health check) and for an unknown family."""

    source: Address | None
    destination: Address | None


def encode_proxy_header(header: ProxyHeader) -> bytes:
    """The bytes of `header`. Addresses that are not numeric, or of two families, are our bug: `LocalProtocolError`."""
    if header.source is None or header.destination is None:
        return _SIGNATURE + bytes((_LOCAL, _UNSPECIFIED, 0, 0))
    try:
        source, destination = _address(header.source[0]), _address(header.destination[0])
        ports = header.source[1].to_bytes(2, "big") + header.destination[1].to_bytes(2, "big")
    except (ValueError, OverflowError) as error:
        raise LocalProtocolError(f"no address for a PROXY header: {error}") from None
    if source.version != destination.version:
        raise LocalProtocolError("a PROXY header has addresses of one family")
    body = source.packed + destination.packed + ports
    return _SIGNATURE + bytes((_PROXY, _TCP4 if source.version == 4 else _TCP6)) + len(body).to_bytes(2, "big") + body


@lru_cache(maxsize=64)
def remaining_size(prefix: bytes) -> int:
    """How many bytes of the header follow its first `PREFIX_SIZE`. Raises `Malformed`, so nothing is read that is no header."""
    return _start(Cursor(prefix[:PREFIX_SIZE]))[2]


def parse_proxy_header(data: bytes) -> ProxyHeader:
    """The header that is all of `data`. Raises `Malformed`."""
    cursor = Cursor(data)
    command, family, size = _start(cursor)
    body = Cursor(cursor.take(size))
    cursor.finish()
    if command == _LOCAL or family == _UNSPECIFIED:
        return ProxyHeader(source=None, destination=None)
    width = 4 if family == _TCP4 else 16
    hosts = [_host(body.take(width)) for _ in range(2)]
    ports = [body.uint(2) for _ in range(2)]
    return ProxyHeader(source=(hosts[0], ports[0]), destination=(hosts[1], ports[1]))


_address = lru_cache(maxsize=1024)(ip_address)


def _start(cursor: Cursor) -> tuple[int, int, int]:
    """Command, family and size of the rest, all of them allowed."""
    if cursor.take(len(_SIGNATURE)) != _SIGNATURE:
        raise Malformed("no PROXY v2 signature", "proxy_signature")
    command, family, size = cursor.uint(1), cursor.uint(1), cursor.uint(2)
    if command not in {_LOCAL, _PROXY}:
        raise Malformed(f"PROXY version and command 0x{command:02x}", "proxy_command")
    if command == _PROXY and family not in {_UNSPECIFIED, _TCP4, _TCP6}:
        raise Malformed(f"PROXY address family 0x{family:02x}", "proxy_family")
    if PREFIX_SIZE + size > HEADER_MAX:
        raise Malformed(f"a PROXY header of {PREFIX_SIZE + size} bytes, {HEADER_MAX} allowed", "too_large")
    return command, family, size


def _host(packed: bytes) -> str:
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))
