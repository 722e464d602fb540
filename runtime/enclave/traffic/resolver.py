"""What the resolver inside answers: an allowed name's own loopback address, and nothing about any other name.

Runs inside the enclave; pure, so a question becomes an answer without leaving the machine: what a name resolves to outside is the
parent's affair, and a denied name is refused at once. resolver_serve.py carries it over UDP and TCP.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, Protocol, TypeAlias

from runtime.enclave.traffic.egress_policy import DecisionReason, EgressPolicy
from runtime.protocol import dns
from runtime.protocol.errors import Malformed

POOL = IPv4Network("127.64.0.0/10")
"""Loopback addresses that stand for names; the first is nobody's."""

NAMES_MAX = 16384
"""Names that get an address in one boot: a process that makes up names under an allowed suffix takes no more memory than that."""

_EXACT_MAX = 1 << 16  # addresses for the names of the rules: a file of 64 KiB has fewer

TTL = 60
"""Seconds. The address of a name changes with a boot and with nothing else."""

Unlisted: TypeAlias = Literal["names_exhausted", "listen_failed"]
"""Why an allowed name has no address."""

LookupReason: TypeAlias = (
    DecisionReason
    | dns.QueryFault
    | Literal["no_ipv6", "type_not_allowed", "class_not_allowed", "edns_version", "link_down"]
    | Unlisted
)

_PROHIBITED, _NETWORK_ERROR = 18, 23  # RFC 8914 sections 4.19 and 4.24


class Names(Protocol):
    """Who has addresses for names."""

    def address(self, name: str) -> IPv4Address | Unlisted:
        """The address of the normalised and allowed `name`, always the same, or why there is none."""


class LoopbackNames:
    """Which loopback address stands for which name: given out once, kept for the boot. Not shared between processes.

    An address depends on its name and hardly on anything else, so that one which a program remembers means the same name after the
    worker was started again: the names of the rules come first, in their order, and of others the digest says where to look for a
    free one.
    """

    def __init__(self, exact_names: Iterable[str], *, most: int = NAMES_MAX) -> None:
        """`exact_names` get theirs first and always."""
        self._most = most
        self._addresses: dict[str, IPv4Address] = {}
        self._names: dict[IPv4Address, str] = {}
        for number, name in enumerate(exact_names, 1):
            self._give(name, POOL[number])

    def address(self, name: str) -> IPv4Address | Unlisted:
        """See `Names`."""
        known = self._addresses.get(name)
        if known is not None:
            return known
        if len(self._addresses) >= self._most:
            return "names_exhausted"
        place = int.from_bytes(sha256(name.encode()).digest()[:8], "big")
        while (address := POOL[_EXACT_MAX + place % (POOL.num_addresses - _EXACT_MAX)]) in self._names:
            place += 1
        return self._give(name, address)

    def name(self, address: IPv4Address) -> str | None:
        """The name that `address` was given to."""
        return self._names.get(address)

    def _give(self, name: str, address: IPv4Address) -> IPv4Address:
        self._addresses[name] = address
        self._names[address] = name
        return address


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One question and what became of it, for the log. `name` is "" and `type` 0 where none was understood; `code` is the answer's
    RCODE, None when nothing was answered; `rule` is as in `Decision`."""

    name: str
    type: int
    reason: LookupReason
    rule: int | None
    code: int | None


def resolve(
    data_untrusted: bytes, policy: EgressPolicy, names: Names, *, link_up: bool, over_tcp: bool = False
) -> tuple[bytes | None, Lookup]:
    """The answer to one message, None when it deserves none, and its record. Raises nothing for any bytes."""
    try:
        query = dns.decode_query(data_untrusted)
    except Malformed as fault:
        answer = dns.answer_to_fault(data_untrusted, fault.reason)
        code = None if answer is None else answer[3] & 15
        return answer, Lookup(name="", type=0, reason=_fault(fault.reason), rule=None, code=code)
    limit = dns.TCP_MAX if over_tcp else query.udp_limit
    reason, rule, code, addresses = _judge(query, policy, names, link_up=link_up)
    extended = {dns.REFUSED: _PROHIBITED, dns.SERVFAIL: _NETWORK_ERROR if reason == "link_down" else None}.get(code)
    answer = dns.encode_answer(query, code, addresses, ttl=TTL, limit=limit, extended_error=extended)
    return answer, Lookup(name=query.name, type=query.type, reason=reason, rule=rule, code=code)


def _judge(
    query: dns.Query, policy: EgressPolicy, names: Names, *, link_up: bool
) -> tuple[LookupReason, int | None, int, tuple[IPv4Address, ...]]:
    """(reason, rule, RCODE, addresses)."""
    if query.edns is not None and query.edns.version > 0:
        return "edns_version", None, dns.BADVERS, ()
    if query.class_ != dns.IN:
        return "class_not_allowed", None, dns.REFUSED, ()
    decision = policy.resolvable(query.name)
    if not decision.allowed:
        return decision.reason, None, dns.REFUSED, ()
    if query.type not in (dns.A, dns.AAAA):
        return "type_not_allowed", decision.rule, dns.REFUSED, ()
    if not link_up:
        return "link_down", decision.rule, dns.SERVFAIL, ()
    address = names.address(decision.host)
    if not isinstance(address, IPv4Address):
        return address, decision.rule, dns.SERVFAIL, ()
    if query.type == dns.AAAA:
        return "no_ipv6", decision.rule, dns.NOERROR, ()
    return "allowed", decision.rule, dns.NOERROR, (address,)


def _fault(reason: str) -> dns.QueryFault:
    for known in dns.QUERY_FAULTS:
        if reason == known:
            return known
    raise AssertionError(reason)
