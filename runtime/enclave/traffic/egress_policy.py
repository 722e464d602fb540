"""Whether a customer process may connect to a name or an address and a port, by the rules of the measured configuration.

Runs inside the enclave and in `enclave egress explain`; pure. Trusts the configuration. What is judged is what a process asked for,
text as it came: it is normalised once, here, and whoever goes on uses the decision's `host` and never the text. The policy never
looks at an address that a name resolves to, so rebinding a name changes nothing.

The first rule in the order of the file that has both the host and the port decides.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from runtime.enclave.config_egress import EgressRule, SniException, first_and_last
from runtime.protocol.address_kind import Address, kind_of, literal
from runtime.protocol.errors import Malformed
from runtime.protocol.host_name import NAME_MAX, wire_name

DecisionReason: TypeAlias = Literal[
    "allowed",
    "list_empty",
    "name_not_allowed",
    "address_not_allowed",
    "port_not_allowed",
    "port_out_of_range",
    "not_a_name",
    "name_too_long",
    "name_is_address",
    "address_spelling",
    "address_embeds_ipv4",
]

TLS_PORT = 443
"""The port that must speak TLS unless its rule says otherwise."""

_ADDRESS_LIKE = re.compile(r".*:.*|\[.*|(.*\.)?([0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsDemand:
    """What the first bytes must be: a ClientHello, that asks for `name` (None: whatever it asks for) or is excepted."""

    name: str | None
    exceptions: tuple[SniException, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of one question. `rule` counts from 0 in the file: the rule that allows, or whose ports do not include this one.
    `host` is normalised, and "" where the text is neither name nor address. `tls` is None where any protocol may be spoken."""

    allowed: bool
    reason: DecisionReason
    rule: int | None
    host: str
    port: int
    tls: TlsDemand | None = None


class EgressPolicy:
    """The rules, indexed. Nothing changes in it."""

    def __init__(self, rules: Iterable[EgressRule]) -> None:
        self.rules = tuple(rules)
        self._names: defaultdict[str, list[int]] = defaultdict(list)
        self._suffixes: defaultdict[str, list[int]] = defaultdict(list)
        self._networks = [index for index, rule in enumerate(self.rules) if rule.cidr is not None]
        for index, rule in enumerate(self.rules):
            if rule.name is not None:
                self._names[rule.name].append(index)
            if rule.suffix is not None:
                self._suffixes["." + rule.suffix].append(index)
                if rule.apex:
                    self._names[rule.suffix].append(index)

    def decide(self, host_untrusted: str, port: int) -> Decision:
        """Whether a connection to `port` of a name or an address may be opened; for the explicit proxy and for explanations."""
        if len(host_untrusted) > NAME_MAX + 1 or not _ADDRESS_LIKE.fullmatch(host_untrusted):
            return self.decide_name(host_untrusted, port)
        try:
            address = literal(host_untrusted)
        except Malformed:
            return _denied("address_spelling", "", port)
        if kind_of(address) == "embeds_ipv4":
            return _denied("address_embeds_ipv4", str(address), port)
        return self._decide_among(self._of_address(address), str(address), port, "address_not_allowed")

    def decide_name(self, name_untrusted: str, port: int) -> Decision:
        """The same where only a name will do: an address in any spelling is none."""
        try:
            name = wire_name(name_untrusted)
        except Malformed as error:
            return _denied(_of_name(error.reason), "", port)
        return self._decide_among(self._of_name(name), name, port, "name_not_allowed")

    def resolvable(self, name_untrusted: str) -> Decision:
        """Whether the name may be resolved: some rule has it, on whatever port. The decision's port is 0."""
        try:
            name = wire_name(name_untrusted)
        except Malformed as error:
            return _denied(_of_name(error.reason), "", 0)
        matching = self._of_name(name)
        if matching:
            return Decision(allowed=True, reason="allowed", rule=matching[0], host=name, port=0)
        return _denied("name_not_allowed" if self.rules else "list_empty", name, 0)

    def matching(self, host: str) -> tuple[int, ...]:
        """The rules that have the host, on whatever ports, in the order of the file. `host` is a decision's."""
        try:
            return tuple(self._of_name(wire_name(host)))
        except Malformed:
            return tuple(self._of_address(literal(host))) if host else ()

    def ports(self, name: str) -> tuple[int, ...]:
        """Every port on which the normalised `name` is allowed, in order: where the egress listens for it."""
        spans = (first_and_last(entry) for index in self._of_name(name) for entry in self.rules[index].ports)
        return tuple(sorted({port for first, last in spans for port in range(first, last + 1)}))

    def exact_names(self) -> Iterator[str]:
        """The names that the rules spell out, each once, in the order of the file."""
        yield from sorted(self._names, key=lambda name: self._names[name][0])

    def _of_name(self, name: str) -> list[int]:
        found = list(self._names.get(name, ()))
        position = name.find(".")
        while position >= 0:
            found += self._suffixes.get(name[position:], ())
            position = name.find(".", position + 1)
        return sorted(found)

    def _of_address(self, address: Address) -> list[int]:
        networks = ((index, self.rules[index].cidr) for index in self._networks)
        return [index for index, network in networks if network is not None and address in network]

    def _decide_among(self, matching: list[int], host: str, port: int, otherwise: DecisionReason) -> Decision:
        if not 1 <= port <= 65535:
            return _denied("port_out_of_range", host, port)
        for index in matching:
            rule = self.rules[index]
            if any(first <= port <= last for first, last in map(first_and_last, rule.ports)):
                return Decision(allowed=True, reason="allowed", rule=index, host=host, port=port, tls=_demand(rule, host, port))
        if matching:
            return _denied("port_not_allowed", host, port, matching[0])
        return _denied(otherwise if self.rules else "list_empty", host, port)


def _demand(rule: EgressRule, host: str, port: int) -> TlsDemand | None:
    if rule.tls is False or (rule.tls is None and port != TLS_PORT):
        return None
    return TlsDemand(name=None if rule.cidr is not None else host, exceptions=rule.sni)


def _denied(reason: DecisionReason, host: str, port: int, rule: int | None = None) -> Decision:
    return Decision(allowed=False, reason=reason, rule=rule, host=host, port=port)


def _of_name(reason: str) -> DecisionReason:
    match reason:
        case "name_too_long" | "name_is_address":
            return reason
        case _:
            return "not_a_name"
