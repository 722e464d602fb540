"""SOCKS 5 (RFC 1928) as the proxy inside speaks it: CONNECT without authentication, and nothing else.

Runs inside the enclave; pure. The bytes are a process's, whoever wrote it. What follows a request belongs to somebody else, so a reader
takes exactly `PREFIX_SIZE` bytes and what `methods_size` says, then `REQUEST_PREFIX` and what `remaining_size` says.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, TypeAlias, get_args

from runtime.protocol.errors import Malformed

SocksFault: TypeAlias = Literal["socks_version", "socks_method", "socks_command", "socks_address", "truncated"]
SOCKS_FAULTS: tuple[SocksFault, ...] = get_args(SocksFault)

VERSION = 5
PREFIX_SIZE = 2
REQUEST_PREFIX = 5
"""Bytes that tell how long a request is: up to the first one of its address."""

NO_AUTHENTICATION, NO_METHOD = 0, 0xFF
SUCCEEDED, FAILED, NOT_ALLOWED, UNREACHABLE, REFUSED, EXPIRED, NO_COMMAND, NO_ADDRESS_TYPE = 0, 1, 2, 4, 5, 6, 7, 8
"""Codes of replies (section 6); host unreachable stands for the network too."""

_CONNECT = 1
_IPV4 = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SocksRequest:
    """A request to connect to `port` of `host`: an address, or a name of 1 to 255 octets as they came, each one a character."""

    host: str
    port: int


def methods_size(prefix_untrusted: bytes) -> int:
    """How many bytes of methods follow the first two of a greeting. Raises `Malformed`."""
    if len(prefix_untrusted) != PREFIX_SIZE:
        raise Malformed("a greeting has two bytes and its methods", "truncated")
    if prefix_untrusted[0] != VERSION:
        raise Malformed(f"version {prefix_untrusted[0]} of SOCKS", "socks_version")
    return prefix_untrusted[1]


def require_no_authentication(methods_untrusted: bytes) -> None:
    """Raises `Malformed` where none of the methods is to go without authentication."""
    if NO_AUTHENTICATION not in methods_untrusted:
        raise Malformed("no method of authentication that is spoken here", "socks_method")


def remaining_size(prefix_untrusted: bytes) -> int:
    """How many bytes follow the first `REQUEST_PREFIX` of a request. Raises `Malformed`."""
    if len(prefix_untrusted) != REQUEST_PREFIX:
        raise Malformed("a request has at least five bytes", "truncated")
    version, command, reserved, kind, first = prefix_untrusted
    if version != VERSION or reserved:
        raise Malformed(f"a request of version {version}", "socks_version")
    if command != _CONNECT:
        raise Malformed(f"command {command}: neither BIND nor UDP is spoken here", "socks_command")
    match kind:
        case 1:
            return 3 + 2
        case 4:
            return 15 + 2
        case 3 if first:
            return first + 2
        case _:
            raise Malformed(f"an address of type {kind}, or an empty name", "socks_address")


def decode_request(data_untrusted: bytes) -> SocksRequest:
    """The whole request. Raises `Malformed` with one of `SocksFault`."""
    if len(data_untrusted) != REQUEST_PREFIX + remaining_size(data_untrusted[:REQUEST_PREFIX]):
        raise Malformed(f"a request of {len(data_untrusted)} bytes", "truncated")
    port = int.from_bytes(data_untrusted[-2:], "big")
    match data_untrusted[3]:
        case 1:
            return SocksRequest(host=str(IPv4Address(data_untrusted[4:-2])), port=port)
        case 4:
            return SocksRequest(host=str(IPv6Address(data_untrusted[4:-2])), port=port)
        case _:
            return SocksRequest(host=data_untrusted[5:-2].decode("latin-1"), port=port)


def encode_method(method: int) -> bytes:
    """The answer to a greeting."""
    return bytes((VERSION, method))


def encode_reply(code: int) -> bytes:
    """The answer to a request. It tells no address of ours: nothing outside could use one."""
    return bytes((VERSION, code, 0, _IPV4)) + bytes(6)
