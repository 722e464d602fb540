"""What the policy decides, question by question."""

from ipaddress import ip_address

import pytest

from runtime.enclave.traffic.egress_policy import Decision
from runtime.protocol.address_kind import kind_of, literal
from runtime.protocol.errors import Malformed
from runtime.protocol.host_name import host_name, wire_name
from tests.egress.policies import policy

POLICY = policy()
LONG = "a" * 60 + "." + "b" * 60 + "." + "c" * 60 + "." + "d" * 57 + ".example.org"

ALLOWED = (
    # host, port, rule, what the first bytes must be: the name, "any" (TLS to an address) or None
    ("api.example.com", 443, 0, "api.example.com"),
    ("API.EXAMPLE.com", 443, 0, "api.example.com"),
    ("api.example.com.", 443, 0, "api.example.com"),
    ("api.example.com", 8443, 0, None),
    ("api.example.com", 9000, 9, "api.example.com"),
    ("www.example.org", 443, 1, "www.example.org"),
    ("a.b.c.example.org", 443, 1, "a.b.c.example.org"),
    (LONG, 443, 1, LONG),
    ("apex.example", 443, 2, "apex.example"),
    ("apex.example", 8003, 2, None),
    ("www.apex.example", 8000, 2, None),
    ("db.example.net", 5432, 3, None),
    ("10.1.0.0", 5432, 4, None),
    ("10.1.255.255", 5432, 4, None),
    ("2001:db8:1::5", 443, 5, "any"),
    ("[2001:DB8:1:0:0:0:0:5]", 443, 5, "any"),
    ("xn--bcher-kva.example", 443, 6, "xn--bcher-kva.example"),
    ("plain.example", 443, 7, None),
    ("plain.example", 80, 7, None),
    ("smtps.example", 465, 8, "smtps.example"),
)


@pytest.mark.parametrize(("host", "port", "rule", "tls"), ALLOWED, ids=range(len(ALLOWED)))
def test_what_a_rule_names_is_allowed_by_it(host: str, port: int, rule: int, tls: str | None) -> None:
    decision = POLICY.decide(host, port)
    assert (decision.allowed, decision.reason, decision.rule) == (True, "allowed", rule)
    demanded = None if decision.tls is None else decision.tls.name or "any"
    assert demanded == tls
    assert POLICY.decide(decision.host, port) == decision


DENIED = (
    ("api.example.com", 80, "port_not_allowed", 0),
    ("api.example.com", 444, "port_not_allowed", 0),
    ("apex.example", 8004, "port_not_allowed", 2),
    ("apex.example", 7999, "port_not_allowed", 2),
    ("10.1.0.0", 5433, "port_not_allowed", 4),
    ("api.example.com", 0, "port_out_of_range", None),
    ("api.example.com", -443, "port_out_of_range", None),
    ("api.example.com", 65536 + 443, "port_out_of_range", None),
    ("example.org", 443, "name_not_allowed", None),
    ("example.com", 443, "name_not_allowed", None),
    ("x.api.example.com", 443, "name_not_allowed", None),
    ("10.0.255.255", 5432, "address_not_allowed", None),
    ("10.2.0.0", 5432, "address_not_allowed", None),
    ("2001:db8:2::", 443, "address_not_allowed", None),
    ("", 443, "not_a_name", None),
    (".", 443, "not_a_name", None),
    ("a" * 300, 443, "name_too_long", None),
    (LONG + "dd", 443, "name_too_long", None),
)


@pytest.mark.parametrize(("host", "port", "reason", "rule"), DENIED, ids=range(len(DENIED)))
def test_everything_else_is_denied_with_its_reason(host: str, port: int, reason: str, rule: int | None) -> None:
    decision = POLICY.decide(host, port)
    assert (decision.allowed, decision.reason, decision.rule) == (False, reason, rule)
    assert decision.tls is None


def test_the_first_rule_with_the_host_and_the_port_decides() -> None:
    both = policy(
        "[egress]\nallow = [{ suffix = 'example.org', ports = [443] }, { name = 'a.example.org', ports = [443, 80], tls = false }]"
    )
    first: Decision = both.decide("a.example.org", 443)
    assert (first.rule, first.tls is not None) == (0, True)
    assert both.decide("a.example.org", 80).rule == 1
    assert both.ports("a.example.org") == (80, 443)
    assert both.ports("b.example.org") == (443,)
    assert both.ports("example.org") == ()


def test_what_is_resolvable_is_what_some_rule_has() -> None:
    assert POLICY.resolvable("db.example.NET.").host == "db.example.net"
    for address in ("10.1.2.3", "2001:db8:1::5", "0x0a010203", "167838211"):
        assert POLICY.resolvable(address).reason == "name_is_address"
    assert POLICY.resolvable("example.org").reason == "name_not_allowed"
    assert list(POLICY.exact_names())[:2] == ["api.example.com", "apex.example"]


KINDS = (
    ("global", "1.1.1.1 52.95.110.1 2606:4700::1111 2001:4860:4860::8888"),
    ("metadata", "169.254.169.254 169.254.170.2 169.254.170.23 fd00:ec2::254 fd00:ec2::23"),
    ("loopback", "127.0.0.1 127.64.0.1 127.255.255.255 ::1"),
    ("unspecified", "0.0.0.0 ::"),
    ("link_local", "169.254.0.1 169.254.169.253 fe80::1"),
    ("private", "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 192.0.2.1 198.18.0.1 fc00::1 fd12::1 fec0::1 0.1.2.3"),
    ("multicast", "224.0.0.1 239.255.255.255 ff02::1"),
    ("reserved", "240.0.0.1 255.255.255.255 4000::1 100::1"),
    ("embeds_ipv4", "::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::a00:1 64:ff9b:1::1 2002:a00:1::1 2001::1 ::ffff:0:10.0.0.1"),
)


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in KINDS for text in texts.split()], ids=lambda text: text.replace(":", "-")
)
def test_every_address_has_the_kind_of_its_network(kind: str, text: str) -> None:
    assert kind_of(ip_address(text)) == kind


@pytest.mark.parametrize(
    "text", ["010.1.0.1", "0x0a.1.0.1", "10.1", "167837697", "10.1.0.1.", " 10.1.0.1", "fe80::1%eth0", "[10.1.0.1]", "::1]"]
)
def test_an_address_has_one_spelling(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        literal(text)
    assert refused.value.reason == "address_spelling"


def test_the_two_readers_of_names_agree_on_what_both_take() -> None:
    for text in ("a.example", "A.Example.", "xn--bcher-kva.example", "a--b.example", "1.example", "127.0.0.1.example"):
        assert host_name(text) == wire_name(text)
    assert host_name("bücher.example") == wire_name("XN--BCHER-KVA.EXAMPLE.")
