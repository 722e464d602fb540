"""`enclave egress explain NAME[:PORT] -c enclave.toml`: what the rules of a file say about a name or an address, and which rule says it;
`enclave egress test LOG -c enclave.toml`: what they would do to what was recorded.

Runs anywhere; reads one file and asks the same policy that an enclave holds. Nothing is resolved and nothing is connected to.
"""

import argparse
import json
import re
from ipaddress import ip_address

from runtime.commands.inputs import Unusable, read_file
from runtime.commands.output import fail, write
from runtime.enclave.config import load_enclave_config
from runtime.enclave.traffic.egress_policy import Decision, DecisionReason, EgressPolicy, TlsDemand
from runtime.net.endpoint import Endpoint
from runtime.protocol.address_kind import kind_of
from runtime.protocol.errors import Malformed
from runtime.protocol.host_name import host_name
from runtime.settings import SettingsError
from runtime.simulator.egress_records import recorded, replayed
from runtime.toml_text import to_table

LOG_MAX = 256 << 20
"""Bytes read of a log."""

_DESTINATION = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,9}))?")

_MEANINGS: dict[DecisionReason, str] = {
    "allowed": "a rule has the host and the port",
    "list_empty": "egress.allow is empty, so nothing is allowed",
    "name_not_allowed": "no rule has this name",
    "address_not_allowed": "no rule with cidr has this address",
    "port_not_allowed": "the rule has the host, on other ports",
    "port_out_of_range": "a port is a number from 1 to 65535",
    "not_a_name": "a name has labels of letters, digits and hyphens",
    "name_too_long": "a name has at most 253 octets",
    "name_is_address": "an address is not a name",
    "address_spelling": "an address has one spelling: four decimal numbers, or IPv6 without a zone",
    "address_embeds_ipv4": "an IPv6 address that holds an IPv4 address is never connected to",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `egress explain`. Exit status: 0 allowed, 1 denied, 2 usage."""
    parser = subparsers.add_parser("egress", help="say what a file allows processes to connect to, and by which rule")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain",
        help="what the rules say about one name or address",
        description="Ask the rules of [egress] about a name or an address. Nothing is resolved or connected to. "
        "Exit status: 0 allowed (without a port: on some port), 1 denied, 2 usage.",
    )
    explain.add_argument("destination", metavar="NAME[:PORT]", help="a name or an address; IPv6 with a port in brackets")
    explain.add_argument("-c", "--config", metavar="enclave.toml", required=True, help="whose rules are asked")
    explain.add_argument("--json", action="store_true", help="the outcome as one JSON object")
    explain.set_defaults(handler=_explain)
    test = actions.add_parser(
        "test",
        help="what other rules would do to what was recorded",
        description="Put each destination of an egress log to the rules of a file. LOG is what the parent keeps in output.events, what "
        "`enclave logs` or `enclave logs-open` prints as JSON, or the bare lines. What was in a ClientHello is not recorded and not "
        "replayed. Exit status: 0 everything that was let out still would be, 1 not, 2 usage.",
    )
    test.add_argument("log", metavar="LOG", help="a file")
    test.add_argument("-c", "--config", metavar="enclave.toml", required=True, help="whose rules are asked")
    test.add_argument("--json", action="store_true", help="one JSON object for each destination")
    test.set_defaults(handler=_test)


def _explain(arguments: argparse.Namespace) -> int:
    try:
        host, port = _destination(arguments.destination)
        config = load_enclave_config(read_file(arguments.config), arguments.config, reads_roots=False)
    except (SettingsError, Unusable) as error:
        return fail("egress explain", str(error), 2)
    policy = EgressPolicy(config.egress.allow)
    decision = _without_port(policy, host) if port is None else policy.decide(host, port)
    write(_as_json(policy, decision, port) if arguments.json else _as_text(policy, decision, host, port, config.egress.proxy))
    return 0 if decision.allowed else 1


def _test(arguments: argparse.Namespace) -> int:
    try:
        config = load_enclave_config(read_file(arguments.config), arguments.config, reads_roots=False)
        text = read_file(arguments.log, most=LOG_MAX).decode(errors="replace")
    except (SettingsError, Unusable) as error:
        return fail("egress test", str(error), 2)
    policy = EgressPolicy(config.egress.allow)
    is_less = False
    records = recorded(text)
    if not records:
        return fail("egress test", f"{arguments.log}: no line of an egress log", 2)
    for record in records:
        decision = replayed(record, policy)
        is_less |= record.was_allowed and not decision.allowed
        if arguments.json:
            fields = {"host": record.host, "port": record.port, "was": record.reason, "allowed": decision.allowed}
            write(json.dumps({**fields, "reason": decision.reason, "rule": decision.rule}))
        else:
            verdict = ("still " if record.was_allowed == decision.allowed else "NOW ") + (
                "allowed" if decision.allowed else "denied"
            )
            place = "looked up" if record.port is None else f"port {record.port}"
            rule = "" if decision.rule is None else f", egress.allow[{decision.rule}]"
            write(f"{verdict:<14} {ascii(record.host)[1:-1]} {place} ({decision.reason}{rule}; recorded: {record.reason})")
    return 1 if is_less else 0


def _destination(text: str) -> tuple[str, int | None]:
    """Host and port. A name in letters of another script is asked about as the A-labels that programs send."""
    match = _DESTINATION.fullmatch(text)
    if match is None:
        try:
            return str(ip_address(text)), None
        except ValueError:
            raise Unusable(f"{text!a} is not NAME, NAME:PORT, ADDRESS or [ADDRESS]:PORT") from None
    host = match["host"]
    if not host.isascii():
        try:
            host = host_name(host)
        except Malformed as error:
            raise Unusable(error.detail) from None
    return host, None if match["port"] is None else int(match["port"])


def _without_port(policy: EgressPolicy, host: str) -> Decision:
    """About the host alone: the decision for the first port of the first rule that has it, or for any port where none does."""
    decision = policy.decide(host, 1)
    matching = policy.matching(decision.host)
    if not matching:
        return decision
    first = policy.rules[matching[0]].ports[0]
    return policy.decide(host, int(str(first).partition("-")[0]))


def _as_json(policy: EgressPolicy, decision: Decision, port: int | None) -> str:
    tls = None if port is None or decision.tls is None else {"name": decision.tls.name, "sni": list(decision.tls.exceptions)}
    return json.dumps(
        {
            "host": decision.host,
            "port": port,
            "allowed": decision.allowed,
            "reason": decision.reason,
            "rule": decision.rule,
            "tls": tls,
            "rules": [{"rule": index, **to_table(policy.rules[index])} for index in policy.matching(decision.host)],
        }
    )


def _as_text(policy: EgressPolicy, decision: Decision, host: str, port: int | None, proxy: Endpoint | None) -> str:
    shown = decision.host or ascii(host)
    rows = [("reason", f"{decision.reason}: {_MEANINGS[decision.reason]}")]
    if decision.rule is not None and port is not None:
        rows.append(("rule", _rule(policy, decision.rule)))
    if port is None:
        rows += [("rule", _rule(policy, index)) for index in policy.matching(decision.host)]
    elif decision.allowed:
        rows.append(("first bytes", _first_bytes(decision.tls)))
    kind = _kind(decision.host)
    if decision.allowed and kind is not None:
        rows.append(("way", "egress.proxy is not set: no process can ask for it" if proxy is None else f"the proxy at {proxy}"))
    if kind not in (None, "global"):
        rows.append(("parent", f"refuses it as {kind}, unless its own configuration allows it"))
    verdict = "ALLOWED" if decision.allowed else "DENIED"
    place = "" if port is None else f" port {port}"
    return f"{verdict:<9} {shown}{place}\n" + "\n".join(f"  {label:<12} {value}" for label, value in rows)


def _rule(policy: EgressPolicy, index: int) -> str:
    table = to_table(policy.rules[index])
    return f"egress.allow[{index}]: " + ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in table.items() if value not in (False, [])
    )


def _first_bytes(demand: TlsDemand | None) -> str:
    if demand is None:
        return "anything"
    asked = "TLS" if demand.name is None else f"TLS that asks for {demand.name}"
    return asked + "".join(f", or whose name is {exception}" for exception in demand.exceptions)


def _kind(host: str) -> str | None:
    try:
        return kind_of(ip_address(host))
    except ValueError:
        return None
