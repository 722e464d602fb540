"""Reads the egress log back: from what a parent kept of it, or from its bare lines; and makes the smallest list of rules of it.

Runs on a developer's machine. The lines are an enclave's word, and their hosts what some process asked for: what is no line of the
log is passed over, and no host gets into a rule that the policy would not take.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, get_args

from runtime.enclave.config_egress import EgressRule
from runtime.enclave.logs.output import DECISIONS
from runtime.enclave.traffic.egress_policy import TLS_PORT, Decision, DecisionReason, EgressPolicy
from runtime.settings import KeyProblem
from runtime.toml_text import to_table

WANTED = ("name_not_allowed", "list_empty", "address_not_allowed", "port_not_allowed")
"""Reasons for which a rule can be made; for the others no rule would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One destination of the log, over all its lines. `port` is None for a question to the resolver. `was_allowed`: by the rules."""

    host: str
    port: int | None
    reason: str
    was_allowed: bool


def recorded(text: str) -> list[Recorded]:
    """Each destination once, in the order of the log."""
    found: dict[tuple[str, int | None, str], Recorded] = {}
    for fields in _lines(text):
        match fields:
            case {"way": str(), "host": str(host), "reason": str(reason)} if host:  # a request that was none asked for nothing
                port = fields.get("port")
                if port is None or type(port) is int:
                    was = reason == "allowed" or reason not in get_args(DecisionReason)
                    found.setdefault((host, port, reason), Recorded(host=host, port=port, reason=reason, was_allowed=was))
    return list(found.values())


def replayed(record: Recorded, policy: EgressPolicy) -> Decision:
    """What other rules say to it."""
    return policy.resolvable(record.host) if record.port is None else policy.decide(record.host, record.port)


def smallest_rules(records: Iterable[Recorded]) -> list[EgressRule]:
    """Rules for exactly what was asked for. Of a name that was only looked up no port is known: 443 stands in for it."""
    ports: dict[str, set[int]] = {}
    for record in records:
        if record.was_allowed or record.reason in WANTED:
            ports.setdefault(record.host, set()).update(() if record.port is None else (record.port,))
    rules = []
    for host, known in sorted(ports.items()):
        chosen = tuple(sorted(known)) or (TLS_PORT,)
        try:
            rules.append(
                EgressRule(cidr=ip_network(host), ports=chosen) if _is_address(host) else EgressRule(name=host, ports=chosen)
            )
        except (KeyProblem, ValueError):
            continue  # such as localhost
    return rules


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def as_toml(rules: Iterable[EgressRule], looked_up: Iterable[str] = ()) -> str:
    """`[egress]` as it stands in an enclave.toml; a name in `looked_up` says that its port is a guess."""
    only = set(looked_up)
    lines = []
    for rule in rules:
        table = {key: value for key, value in to_table(rule).items() if value not in (False, [])}
        guess = "  # only looked up: its port was not seen" if rule.name in only else ""
        lines.append("  { " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) + " }," + guess + "\n")
    return "[egress]\nallow = [\n" + "".join(lines) + "]\n"


def only_looked_up(records: Iterable[Recorded]) -> set[str]:
    """Names of which no connection was seen."""
    kept = list(records)
    return {each.host for each in kept if each.port is None} - {each.host for each in kept if each.port is not None}


def _lines(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        fields = _object(line)
        if fields.get("event") == DECISIONS and isinstance(fields.get("line"), str):
            fields = _object(fields["line"])
        yield fields


def _object(line: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
