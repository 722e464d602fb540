"""The resolver's answers, bytes in and bytes out, against the table of checks; and what holds for every one of them."""

from ipaddress import IPv4Address, ip_address

import pytest

from runtime.enclave.traffic.resolver import NAMES_MAX, POOL, TTL, LoopbackNames, resolve
from runtime.protocol import dns
from runtime.protocol.errors import LocalProtocolError, Malformed
from tests.egress.dns_checks import CHECKS, Check
from tests.egress.packets import AAAA, ask, opt, packet, question, read
from tests.egress.policies import policy

POLICY = policy()


def names() -> LoopbackNames:
    return LoopbackNames(POLICY.exact_names())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.what.replace(" ", "-"))
@pytest.mark.parametrize("over_tcp", [False, True], ids=["udp", "tcp"])
def test_every_question_gets_its_answer_and_its_reason(check: Check, over_tcp: bool) -> None:
    answer, lookup = resolve(check.data, POLICY, names(), link_up=not check.link_down, over_tcp=over_tcp)
    assert lookup.reason == check.reason
    if check.code is None:
        assert (answer, lookup.code) == (None, None)
        return
    assert answer is not None
    found = read(answer)
    assert (found.code, lookup.code, len(found.addresses)) == (check.code, check.code, check.addresses)
    assert found.id.to_bytes(2, "big") == check.data[:2]
    assert found.flags & 0x0640 == 0
    assert found.flags & 0x0100 == int.from_bytes(check.data[2:4], "big") & 0x0100
    assert found.flags & 0x0020 == 0, "nothing here is authenticated data"
    assert all(ip_address(address) in POOL for address in found.addresses)
    assert found.ttl in (None, TTL)
    assert len(answer) <= 512
    if found.question:
        assert check.data[12:].startswith(found.question), "the question comes back in its own case"
        assert (found.opt is not None) == (check.data[11] == 1)


def test_there_are_as_many_checks_as_the_strongest_resolver_was_given() -> None:
    assert len({check.data + bytes([check.link_down]) for check in CHECKS}) == len({check.what for check in CHECKS}) >= 116


BAD = [check for check in CHECKS if check.reason in dns.QUERY_FAULTS]


@pytest.mark.parametrize("check", BAD, ids=lambda check: check.what.replace(" ", "-"))
def test_a_bad_query_is_one_documented_error(check: Check) -> None:
    with pytest.raises(Malformed) as fault:
        dns.decode_query(check.data)
    assert fault.value.reason == check.reason


def test_a_name_keeps_its_address_and_each_has_its_own() -> None:
    table = names()
    found = {name: table.address(name) for name in ("api.example.com", "a.example.org", "b.example.org", "db.example.net")}
    assert len(set(found.values())) == 4
    assert {name: table.address(name) for name in reversed(found)} == found
    assert {table.name(address) for address in found.values() if isinstance(address, IPv4Address)} == set(found)
    assert table.name(POOL[0]) is None
    for spelling in ("api.example.com", "API.example.COM"):
        answer, _ = resolve(ask(spelling), POLICY, table, link_up=True)
        assert answer is not None
        assert read(answer).addresses == (str(found["api.example.com"]),)


def test_exact_names_have_the_same_addresses_in_every_boot() -> None:
    first, second = names(), names()
    second.address("z.example.org")
    assert [first.address(name) for name in POLICY.exact_names()] == [second.address(name) for name in POLICY.exact_names()]
    assert first.address("api.example.com") == POOL[1]


def test_made_up_names_run_out_and_exact_ones_do_not() -> None:
    table = LoopbackNames(POLICY.exact_names(), most=8)
    codes = []
    for number in range(12):
        answer, lookup = resolve(ask(f"n{number}.example.org"), POLICY, table, link_up=True)
        assert answer is not None
        codes.append((read(answer).code, lookup.reason))
    assert codes[-1] == (2, "names_exhausted")
    answer, _ = resolve(ask("db.example.net"), POLICY, table, link_up=True)
    assert answer is not None
    assert read(answer).code == 0
    assert POOL.num_addresses > NAMES_MAX


def test_asking_for_ipv6_first_gives_the_same_address() -> None:
    table = names()
    resolve(ask("a.example.org", AAAA), POLICY, table, link_up=True)
    address = table.address("a.example.org")
    answer, _ = resolve(ask("a.example.org"), POLICY, table, link_up=True)
    assert answer is not None
    assert read(answer).addresses == (str(address),)


def test_the_record_names_rule_type_and_name() -> None:
    _, lookup = resolve(ask("WWW.example.org"), POLICY, names(), link_up=True)
    assert (lookup.name, lookup.type, lookup.rule, lookup.reason, lookup.code) == ("WWW.example.org", 1, 1, "allowed", 0)
    _, lookup = resolve(packet(b"\x04a.\n\xff\0\0\1\0\1"), POLICY, names(), link_up=True)
    assert lookup.name == "a\\046\\010\\255"


def test_a_reason_is_told_to_those_who_speak_edns() -> None:
    for name, link_up, code in (("evil.test", True, 18), ("api.example.com", False, 23)):
        answer, _ = resolve(packet(question(name), opt()), POLICY, names(), link_up=link_up)
        assert answer is not None
        record = read(answer).opt
        assert record is not None
        assert record[11:] == b"\0\x0f\0\2" + code.to_bytes(2, "big")
    answer, _ = resolve(packet(question(), opt(flags=0xFFFF)), POLICY, names(), link_up=True)
    assert answer is not None
    record = read(answer).opt
    assert record == b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"


def test_what_does_not_fit_a_datagram_is_left_out_and_says_so() -> None:
    many = [POOL[index] for index in range(1, 60)]
    plain, large = dns.decode_query(ask("api.example.com")), dns.decode_query(packet(question(), opt(4096)))
    for query, limit in ((plain, 512), (large, 1232)):
        assert query.udp_limit == limit
        short = read(dns.encode_answer(query, dns.NOERROR, many * 2, ttl=1, limit=query.udp_limit))
        assert (short.flags & 0x0200, short.addresses) == (0x0200, ())
        whole = read(dns.encode_answer(query, dns.NOERROR, many * 2, ttl=1))
        assert (whole.flags & 0x0200, len(whole.addresses)) == (0, 118)
    assert dns.decode_query(packet(question(), opt(100))).udp_limit == 512


def test_an_extended_code_needs_edns() -> None:
    with pytest.raises(LocalProtocolError):
        dns.encode_answer(dns.decode_query(ask("a.example")), dns.BADVERS)
