"""Which addresses the enclave may be connected to by the parent: by default the public internet and nothing else.

An enclave speaks here with the parent's place in the network: loopback would reach the parent's own services, 169.254.169.254 its
credentials, private addresses its neighbours. Judged is the address itself, whatever it was written or resolved as, and every IPv4
address inside an IPv6 one (RFC 4291 2.5.5, RFC 6052, RFC 3056, RFC 4380), since the network may unwrap it.
"""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from runtime.parent.config import Egress
from runtime.protocol.address_kind import METADATA, Address

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))


def is_permitted(address: Address, egress: Egress, *, is_named: bool = False) -> bool:
    """Whether the enclave may be connected to `address`; `is_named` says that it asked for the address and not for a name."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None:
        return is_permitted(mapped, egress, is_named=is_named)
    if any(address in network for network in egress.deny):
        return False
    if any(address in network for network in egress.allow if address not in METADATA or network.num_addresses == 1):
        return all(not any(inner in network for network in egress.deny) for inner in _embedded(address))
    return _is_permitted_kind(address, egress, is_named=is_named) and all(
        is_permitted(inner, egress, is_named=is_named) for inner in _embedded(address)
    )


def is_own(address: Address) -> bool:
    """Whether the address is one of this machine's: the kernel would then answer from the address itself. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
        except OSError:
            return False


def _is_permitted_kind(address: Address, egress: Egress, *, is_named: bool) -> bool:
    if address in METADATA or address.is_multicast:
        return False
    if address.is_loopback:
        return egress.allow_loopback
    if is_own(address):
        return False
    if any(address in network for network in _PRIVATE):
        return egress.allow_private or (egress.allow_named and is_named)
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_reserved
    return address in _NAT64 or (address in _GLOBAL_UNICAST and address.is_global)


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that the network may make of an IPv6 one."""
    if isinstance(address, IPv4Address):
        return
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
