"""The rules of `[egress]` in enclave.toml: where customer processes may connect to.

Runs inside the enclave and in the tools around it. A rule that does not parse refuses the file; nothing is guessed from half a rule.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from runtime.enclave import config_values as values
from runtime.net.endpoint import Endpoint, Tcp
from runtime.protocol.address_kind import EMBEDDING
from runtime.protocol.errors import Malformed
from runtime.protocol.host_name import host_name
from runtime.settings import Duration, KeyProblem, NonEmpty, Parse, Range

PORTS_OF_NAME_MAX = 256
"""Ports of a rule by name: each is a socket that listens, for each name. Networks have no such bound."""

PORTS_MAX = 8192
"""The same of all names that the rules spell out, together."""

_PORT_RANGE = re.compile(r"([1-9][0-9]{0,4})-([1-9][0-9]{0,4})")


def rule_name(text: str) -> str:
    """A host name as `runtime.protocol.host_name` compares it. Raises ValueError that says what to write."""
    if text.startswith("*."):
        raise ValueError(f'must be a name without wildcards: write suffix = "{text[2:]}" for the names below one')
    try:
        return host_name(text)
    except Malformed as error:
        if error.reason == "name_is_address":
            raise ValueError("must be a name; for an address write cidr") from None
        if error.reason == "name_idna":
            raise ValueError(f"must be a DNS name: {error.detail}") from None
        raise ValueError('must be a DNS name, such as "app.example.com"') from None


def port_range(text: str) -> str:
    """The text of a range of ports, both ends allowed: "8000-8099"."""
    match = _PORT_RANGE.fullmatch(text)
    if match is None or not int(match[1]) < int(match[2]) <= 65535:
        raise ValueError('must be a port or a range of ports from 1 to 65535, such as 443 or "8000-8099"')
    return text


def first_and_last(entry: int | str) -> tuple[int, int]:
    """The ports of an entry of `ports`, both ends allowed."""
    if isinstance(entry, int):
        return entry, entry
    first, _, last = entry.partition("-")
    return int(first), int(last)


RuleName: TypeAlias = Annotated[str, Parse(rule_name)]
Ports: TypeAlias = Annotated[int, Range(1, 65535)] | Annotated[str, Parse(port_range)]
SniException: TypeAlias = Literal["missing", "encrypted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """One destination, on exactly these ports: a name; every name that ends in a dot and `suffix`, with `apex` that name too; or the
    addresses of a network. `tls` says that all ports must speak TLS, or none; without it port 443 must. The name that a client asks
    for must be the name it connected to, or may be `missing` or `encrypted` where `sni` says so."""

    name: RuleName | None = None
    suffix: RuleName | None = None
    apex: bool = False
    cidr: Annotated[IPv4Network | IPv6Network, Parse(values.network)] | None = None
    ports: Annotated[tuple[Ports, ...], NonEmpty()]
    tls: bool | None = None
    sni: tuple[SniException, ...] = ()

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.name, self.suffix, self.cidr)) != 1:
            raise ValueError("must have exactly one of name, suffix and cidr")
        if self.apex and self.suffix is None:
            raise KeyProblem("has no meaning without suffix", "apex")
        for key in ("name", "suffix"):
            if (getattr(self, key) or "").split(".")[-1] == "localhost":
                raise KeyProblem("must be a name outside: localhost is inside (RFC 6761 section 6.3)", key)
        if isinstance(self.cidr, IPv6Network) and any(self.cidr.subnet_of(network) for network in EMBEDDING):
            raise KeyProblem("must be written as an IPv4 network: its addresses hold IPv4 addresses", "cidr")
        if self.sni and (self.cidr is not None or self.tls is False):
            raise KeyProblem("has no meaning with cidr, or without TLS", "sni")
        values.unique(self.sni, "sni")
        self._check_ports()

    def _check_ports(self) -> None:
        values.unique(self.ports, "ports")
        spans = sorted(map(first_and_last, self.ports))
        for (_, last), (first, _) in pairwise(spans):
            if first <= last:
                raise KeyProblem(f"names {first} more than once", "ports")
        if self.cidr is None and self.port_count > PORTS_OF_NAME_MAX:
            raise KeyProblem(f"must name at most {PORTS_OF_NAME_MAX} ports for a name", "ports")

    @property
    def port_count(self) -> int:
        """How many ports it has."""
        return sum(last - first + 1 for first, last in map(first_and_last, self.ports))


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """`[egress.limits]`: how long a connection may take, and how many there may be at once."""

    connect_timeout: values.Wait = 15.0
    hello_timeout: values.Wait = 10.0
    idle_timeout: Annotated[Duration, Range(1, 7 * 86400)] = 3600.0
    max_duration: Annotated[Duration, Range(1, 365 * 86400)] | None = None
    max_connections: Annotated[int, Range(1, 16384)] = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """`[egress]`: where customer processes may connect to. An empty list allows nothing. `proxy` is where HTTP CONNECT and SOCKS5 are
    spoken, for addresses and for programs that insist on a proxy."""

    allow: tuple[EgressRule, ...] = ()
    proxy: Endpoint | None = None
    limits: EgressLimits = EgressLimits()

    def __post_init__(self) -> None:
        if self.proxy is not None and not _may_be_proxy(self.proxy):
            raise KeyProblem("must be tcp: on an address of 127.0.0.0/16, such as tcp:127.0.0.1:3128", "proxy")
        if sum(rule.port_count for rule in self.allow if rule.name is not None or rule.apex) > PORTS_MAX:
            raise KeyProblem(f"must name at most {PORTS_MAX} ports for all names together", "allow")


def _may_be_proxy(endpoint: Endpoint) -> bool:
    """Loopback, and none of the addresses that stand for names."""
    try:
        return isinstance(endpoint, Tcp) and endpoint.port > 0 and IPv4Address(endpoint.host) in IPv4Network("127.0.0.0/16")
    except ValueError:
        return False


def proxy_environment(egress: Egress) -> dict[str, str]:
    """What tells programs of the proxy, in both spellings that are in use; what is local does not take that way."""
    if not isinstance(egress.proxy, Tcp):
        return {}
    at = f"{egress.proxy.host}:{egress.proxy.port}"
    variables = {"https_proxy": f"http://{at}", "all_proxy": f"socks5h://{at}", "no_proxy": "localhost,127.0.0.1,::1"}
    return {**variables, **{name.upper(): value for name, value in variables.items()}}


NOTHING_OUT = Egress()
