"""No attempt of the corpus gets past the functions that decide, and each is recorded with its reason.

These are the pure functions. What carries bytes around them has to show the same with real sockets.
"""

from ipaddress import IPv4Address

import pytest

from runtime.enclave.traffic.egress_policy import TlsDemand
from runtime.enclave.traffic.resolver import POOL, LoopbackNames, resolve
from runtime.enclave.traffic.sni_gate import judge_hello
from runtime.protocol.client_hello import ClientHelloReader
from runtime.protocol.egress_frames import Connect, decode_connect, encode_connect
from runtime.protocol.errors import Malformed
from tests.egress.bypasses import FIRSTS, HOSTS, LOOPBACKS, PORTS, QUESTIONS, Asked, First, Host, Loopback
from tests.egress.packets import ask, read
from tests.egress.policies import policy

POLICY = policy()
ALL = (*HOSTS, *PORTS, *QUESTIONS, *LOOPBACKS, *FIRSTS)


def test_the_corpus_has_at_least_a_hundred_attempts() -> None:
    assert len(set(ALL)) == len(ALL) >= 100


@pytest.mark.parametrize("attempt", [*HOSTS, *PORTS], ids=range(len(HOSTS) + len(PORTS)))
def test_no_other_host_is_allowed_however_it_is_written(attempt: Host) -> None:
    decision = POLICY.decide(attempt.host, attempt.port)
    assert (decision.allowed, decision.reason, decision.tls) == (False, attempt.reason, None)
    if not attempt.reason.startswith("port_"):
        assert not any(POLICY.decide(attempt.host, port).allowed for port in (443, 5432, 8443, 8000))
        assert not POLICY.resolvable(attempt.host).allowed


@pytest.mark.parametrize("attempt", QUESTIONS, ids=range(len(QUESTIONS)))
def test_no_other_question_gets_an_address(attempt: Asked) -> None:
    answer, lookup = resolve(attempt.data, POLICY, LoopbackNames(POLICY.exact_names()), link_up=True)
    assert lookup.reason == attempt.reason
    assert answer is None or read(answer).addresses == ()


@pytest.mark.parametrize("attempt", LOOPBACKS, ids=range(len(LOOPBACKS)))
def test_no_address_stands_for_more_than_its_name_and_ports(attempt: Loopback) -> None:
    name = LoopbackNames(POLICY.exact_names()).name(IPv4Address(attempt.address))
    if name is None:
        assert attempt.reason == "address_without_name"
        return
    assert attempt.port not in POLICY.ports(name)
    assert POLICY.decide_name(name, attempt.port).reason == attempt.reason


@pytest.mark.parametrize("attempt", FIRSTS, ids=range(len(FIRSTS)))
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_no_other_first_bytes_are_passed_on(attempt: First, size: int) -> None:
    demand = POLICY.decide_name("api.example.com", 443).tls
    assert demand is not None
    assert first_reason(attempt.data, size, demand) == attempt.reason


def first_reason(data: bytes, size: int, demand: TlsDemand) -> str:
    reader = ClientHelloReader()
    try:
        for index in range(0, len(data), size):
            if (found := reader.receive_data(data[index : index + size])) is not None:
                return judge_hello(found, demand)
        reader.finish()
    except Malformed as fault:
        return fault.reason
    raise AssertionError("finish raises")


def test_what_is_allowed_goes_to_the_parent_as_the_normalised_host() -> None:
    for host, port in (("API.example.com.", 443), ("www.EXAMPLE.org", 443), ("10.1.0.1", 5432), ("[2001:DB8:1::5]", 443)):
        decision = POLICY.decide(host, port)
        assert decision.allowed
        frame = encode_connect(Connect(host=decision.host, port=decision.port))
        assert decode_connect(frame[4:]) == Connect(host=decision.host, port=port)
        assert decision.host == decision.host.lower()


def test_a_name_that_resolves_elsewhere_tomorrow_is_the_same_name_to_the_policy() -> None:
    """Rebinding has nothing to change: what is decided on is the name, and its address here is the enclave's own."""
    names = LoopbackNames(POLICY.exact_names())
    answers = [resolve(ask("www.example.org"), POLICY, names, link_up=True)[0] for _ in range(3)]
    assert len(set(answers)) == 1
    assert answers[0] is not None
    (address,) = read(answers[0]).addresses
    assert IPv4Address(address) in POOL
    assert names.name(IPv4Address(address)) == "www.example.org"
