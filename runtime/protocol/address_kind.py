"""IP addresses as egress judges them: the one spelling that is taken for an address, and the kind of network that it belongs to.

Runs wherever an address is judged; pure. The kinds are those of the IANA special-purpose registries, as far as it matters to
somebody who lets a stranger connect from their place in the network.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal, TypeAlias

from runtime.protocol.errors import Malformed

Address: TypeAlias = IPv4Address | IPv6Address
AddressKind: TypeAlias = Literal[
    "global", "metadata", "loopback", "unspecified", "link_local", "private", "multicast", "reserved", "embeds_ipv4"
]

METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")),
)
"""Services that hand out credentials: of the instance's role (AWS, *Instance metadata and user data*), of an ECS task's (*Task IAM role*)
and of an EKS pod's (*EKS Pod Identity*)."""

EMBEDDING = tuple(
    IPv6Network(network)
    for network in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
"""Networks whose addresses hold an IPv4 address that a host or a router may unwrap: mapped and compatible (RFC 4291 section 2.5.5),
translated (RFC 2765), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380)."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")


def literal(text_untrusted: str) -> Address:
    """The address that `text_untrusted` is: dotted decimal of four parts without leading zeros, or IPv6 with or without brackets.

    Raises `Malformed` with `address_spelling` for every other text: octal, hexadecimal, short and zoned forms are read differently by
    different programs.
    """
    text = text_untrusted
    if text.startswith("[") and text.endswith("]") and ":" in text:
        text = text[1:-1]
    if len(text) <= 45 and text.isascii() and "%" not in text:
        try:
            return ip_address(text)
        except ValueError:
            pass
    raise Malformed(f"{text_untrusted!a:.80} is no address that every program reads alike", "address_spelling")


def kind_of(address: Address) -> AddressKind:
    """What network `address` belongs to. Everything but `global` is what a parent refuses unless its own configuration names it."""
    if address in METADATA:
        return "metadata"
    if address.is_unspecified:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if isinstance(address, IPv6Address) and any(address in network for network in EMBEDDING):
        return "embeds_ipv4"
    if address.is_link_local:
        return "link_local"
    if address.is_multicast:
        return "multicast"
    if isinstance(address, IPv4Address):
        if address.is_reserved:
            return "reserved"
    elif address.is_site_local:
        return "private"
    elif address not in _GLOBAL_UNICAST:
        return "private" if address.is_private and (int(address) >> 121) == 0x7E else "reserved"
    return "global" if address.is_global else "private"
