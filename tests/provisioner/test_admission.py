"""Tickets and hellos: who may ask, how often, for what; everything that is gone looks the same from outside."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runtime.protocol.messages import Hello, TicketReply, TicketRequest
from runtime.protocol.sealing import Suite
from runtime.provisioner.config import Limits
from runtime.provisioner.service import Failure
from tests.provisioner.refusals import Refusal, refusal, refuse_evidence
from tests.support.prov import ADDRESS, ENCLAVE_ID, INSTANCE, PARENT_KEY, Attempt, Bench, record

OTHER_ADDRESS = "203.0.113.9"
REQUEST = TicketRequest(enclave_id=ENCLAVE_ID, instance_id=INSTANCE).encode()


def ask_for_ticket(bench: Bench, body: bytes = REQUEST, *, key: str | None = PARENT_KEY, address: str = ADDRESS) -> bytes:
    return bench.service.ticket(body, bench.caller(key_digest=key, address=address))


def greet(bench: Bench, hello: bytes, *, address: str = ADDRESS) -> bytes:
    return bench.service.hello(hello, bench.caller(address=address))


def hello_of(bench: Bench, *, ticket: bytes | None = None, **changes: Any) -> bytes:
    """A hello of a fresh boot, some of its fields changed."""
    hello = Hello.decode(Attempt(bench.boot(), ticket=ticket).hello())
    return Hello(**{name: getattr(hello, name) for name in Hello.__slots__} | changes).encode()


# Tickets


@pytest.mark.parametrize("key", [None, "", "5a" * 48, PARENT_KEY.upper(), PARENT_KEY[:-2]], ids=repr)
def test_a_parent_whose_key_is_not_registered_gets_no_ticket(bench: Bench, key: str | None) -> None:
    refused = refusal(bench, partial(ask_for_ticket, bench, key=key))
    assert refused.outcome == ("refused", "parent_unknown")
    assert refused.entry.enclave_id == ENCLAVE_ID
    assert (refused.entry.detail["parent_key"], refused.entry.detail["instance_id"]) == (key or "none", INSTANCE)


def test_an_unknown_enclave_looks_like_an_unknown_parent(bench: Bench) -> None:
    body = TicketRequest(enclave_id="nobody", instance_id=INSTANCE).encode()
    assert refusal(bench, partial(ask_for_ticket, bench, body)).outcome == ("refused", "parent_unknown")


def test_a_record_without_parents_gives_nobody_a_ticket(bench: Bench) -> None:
    bench.put(parents=())
    for key in (None, "", PARENT_KEY):
        assert refusal(bench, partial(ask_for_ticket, bench, key=key)).outcome == ("refused", "parent_unknown")


def test_any_of_several_parents_may_fetch_a_ticket(bench: Bench) -> None:
    bench.put(parents=(PARENT_KEY, "5a" * 48))
    assert ask_for_ticket(bench) != ask_for_ticket(bench, key="5a" * 48)


def test_a_revoked_record_is_revoked_to_its_own_parents_and_unknown_to_others(bench: Bench) -> None:
    bench.put(status="revoked")
    assert refusal(bench, partial(ask_for_ticket, bench)).outcome == ("revoked", "record_inactive")
    assert refusal(bench, partial(ask_for_ticket, bench, key="5a" * 48)).outcome == ("refused", "parent_unknown")


def test_one_enclaves_parent_gets_no_ticket_for_another(bench: Bench) -> None:
    bench.store.put_record(record(enclave_id="billing", parents=("5a" * 48,)))
    body = TicketRequest(enclave_id="billing", instance_id=INSTANCE).encode()
    assert refusal(bench, partial(ask_for_ticket, bench, body)).outcome == ("refused", "parent_unknown")
    assert TicketReply.decode(ask_for_ticket(bench, body, key="5a" * 48)).lifetime == 600


@pytest.mark.parametrize("body", [b"", b"\xa0", REQUEST + b"\0", REQUEST[:-1], b"\xff" * 100], ids=repr)
def test_a_malformed_ticket_request(bench: Bench, body: bytes) -> None:
    assert refusal(bench, partial(ask_for_ticket, bench, body)).outcome == ("malformed", "malformed")


# Hellos


def test_a_ticket_that_was_never_issued_is_gone(bench: Bench) -> None:
    assert refusal(bench, partial(greet, bench, hello_of(bench, ticket=bytes(32)))).outcome == ("challenge_gone", "ticket_unknown")


@pytest.mark.parametrize(("seconds", "is_gone"), [(599.0, False), (600.0, True), (3600.0, True), (2 * 86400.0, True)])
def test_a_ticket_lives_for_ten_minutes(bench: Bench, seconds: float, is_gone: bool) -> None:
    hello = hello_of(bench)
    bench.clock.advance(seconds)
    if is_gone:
        assert refusal(bench, partial(greet, bench, hello)).outcome == ("challenge_gone", "ticket_expired")
    else:
        assert greet(bench, hello)


def test_unknown_expired_and_spent_tickets_look_the_same_from_outside(bench: Bench) -> None:
    expired = hello_of(bench)
    bench.clock.advance(601)
    spent = bench.boot().attempt()
    spent.run()
    hellos = [hello_of(bench, ticket=bytes(32)), expired, hello_of(bench, ticket=spent.ticket)]
    refused = [refusal(bench, partial(greet, bench, hello)) for hello in hellos]
    assert {(found.code, found.retry_after, found.entry.alarm) for found in refused} == {("challenge_gone", None, False)}
    assert [found.entry.reason for found in refused] == ["ticket_unknown", "ticket_expired", "ticket_reused"]


def test_a_version_that_is_not_spoken_here(bench: Bench) -> None:
    hello = hello_of(bench, versions=(2, 3))
    assert refusal(bench, partial(greet, bench, hello)).outcome == ("unsupported_version", "unsupported_version")
    assert greet(bench, hello_of(bench, versions=(2, 1)))


@pytest.mark.parametrize(
    ("allowed", "offered"),
    [((1,), (2, 3)), ((), (1, 2, 3)), ((1, 2, 3), (0, 4, 255))],
    ids=["another", "none allowed", "none known"],
)
def test_a_suite_that_the_record_does_not_allow(bench: Bench, allowed: tuple[int, ...], offered: tuple[int, ...]) -> None:
    bench.put(suites=allowed)
    assert refusal(bench, partial(greet, bench, hello_of(bench, suites=offered))).outcome == ("refused", "suite_refused")


def test_a_suite_that_the_record_stops_allowing_between_hello_and_evidence(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    bench.put(suites=(int(Suite.P256),))
    refuse_evidence(attempt, code="refused", reason="suite_refused")


def test_a_record_that_is_revoked_or_removed_gets_no_challenge(bench: Bench) -> None:
    hello = hello_of(bench)
    bench.put(status="revoked")
    assert refusal(bench, partial(greet, bench, hello)).outcome == ("revoked", "record_inactive")


def test_a_record_that_is_revoked_between_hello_and_evidence_gets_no_release(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    bench.put(status="revoked")
    refuse_evidence(attempt, code="revoked", reason="record_inactive")
    bench.put(status="active")
    later = bench.boot().attempt(ticket=attempt.ticket)
    later.opened(later.run())


def test_a_malformed_hello_opens_no_challenge(bench: Bench) -> None:
    hello = hello_of(bench)
    for body in (b"", hello + b"\0", hello[:-1]):
        assert refusal(bench, partial(greet, bench, body)).outcome == ("malformed", "malformed")


def test_four_challenges_may_be_open_on_a_ticket_and_a_fifth_is_asked_to_wait(bench: Bench) -> None:
    ticket = bench.ticket()
    attempts = [bench.boot().attempt(ticket=ticket) for _ in range(4)]
    for attempt in attempts:
        attempt.greet()
    fifth = refusal(bench, partial(greet, bench, hello_of(bench, ticket=ticket)))
    assert (fifth.outcome, fifth.retry_after) == (("busy", "rate_limited"), 5)
    attempts[0].evidence(b"no document")
    refuse_evidence(attempts[0], code="refused", reason="doc_syntax")
    assert greet(bench, hello_of(bench, ticket=ticket))  # a consumed challenge is not outstanding
    assert refusal(bench, partial(greet, bench, hello_of(bench, ticket=ticket))).code == "busy"
    bench.clock.advance(60)
    assert greet(bench, hello_of(bench, ticket=ticket))  # nor is an expired one
    assert greet(bench, hello_of(bench))  # another ticket has its own four


# Rates


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Bench]:
    """A bench that takes three requests at once and one in ten seconds."""
    bench = Bench(tmp_path, limits=Limits(requests_per_enclave=0.1, requests_per_address=10_000, burst=3))
    yield bench
    bench.close()


@pytest.fixture
def slow_address(tmp_path: Path) -> Iterator[Bench]:
    """The same for addresses."""
    bench = Bench(tmp_path, limits=Limits(requests_per_enclave=10_000, requests_per_address=0.1, burst=3))
    yield bench
    bench.close()


def is_limited(refused: Refusal) -> bool:
    return (refused.outcome, refused.retry_after) == (("busy", "rate_limited"), 5)


def test_an_enclave_asks_for_a_bounded_number_of_tickets_and_challenges(slow: Bench) -> None:
    """The bucket is the enclave's, whoever asks from wherever."""
    ticket = TicketReply.decode(ask_for_ticket(slow)).ticket
    ask_for_ticket(slow, address=OTHER_ADDRESS)
    hello = hello_of(slow, ticket=ticket)
    assert greet(slow, hello)
    assert is_limited(refusal(slow, partial(ask_for_ticket, slow, address="198.51.100.1")))
    assert is_limited(refusal(slow, partial(greet, slow, hello)))
    slow.clock.advance(10)
    assert greet(slow, hello)
    assert is_limited(refusal(slow, partial(greet, slow, hello)))
    slow.store.put_record(record(enclave_id="billing"))
    assert ask_for_ticket(slow, TicketRequest(enclave_id="billing", instance_id=INSTANCE).encode())


STEPS = ("ticket", "hello", "evidence", "confirm")


@pytest.mark.parametrize("step", STEPS)
def test_an_address_is_limited_before_anything_is_read(slow_address: Bench, step: str) -> None:
    bench, method = slow_address, getattr(slow_address.service, step)
    for _ in range(3):
        assert refusal(bench, lambda: method(b"junk", bench.caller())).code == "malformed"
    refused = refusal(bench, lambda: method(b"junk", bench.caller()))
    assert is_limited(refused)
    assert set(refused.entry.detail) == {"address", "code", "request_id", "why"}
    assert refusal(bench, lambda: method(b"junk", bench.caller(address=OTHER_ADDRESS))).code == "malformed"
    bench.clock.advance(10)
    assert refusal(bench, lambda: method(b"junk", bench.caller())).code == "malformed"


@pytest.mark.parametrize(
    ("addresses", "are_one"),
    [
        (["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:8000::", "2001:db8:1:2:ffff::1"], True),
        (["192.0.2.9", "::ffff:192.0.2.9", "::ffff:c000:209", "192.0.2.9"], True),
        (["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:1:4::1", "2001:db8:1:5::1"], False),
    ],
    ids=["a /64", "IPv4 in IPv6", "four networks"],
)
def test_a_client_has_one_bucket_whatever_it_calls_itself(slow_address: Bench, addresses: list[str], are_one: bool) -> None:
    bench = slow_address
    codes = [refusal(bench, partial(bench.service.hello, b"", bench.caller(address=address))).code for address in addresses]
    assert codes == ["malformed"] * 3 + ["busy" if are_one else "malformed"]


def test_evidence_over_the_limit_consumes_no_challenge(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=Limits(requests_per_enclave=10_000, requests_per_address=0.1, burst=2))
    try:
        attempt = bench.boot().attempt().ready()  # a ticket and a hello: the address's two
        assert is_limited(refusal(bench, attempt.prove))
        assert bench.challenge_state(attempt.challenge.challenge_id) == "issued"
        bench.clock.advance(10)
        attempt.opened(attempt.prove())
    finally:
        bench.close()


def test_tickets_and_challenges_are_forgotten_an_hour_after_their_end(bench: Bench) -> None:
    """Each sale of a ticket sweeps. What is forgotten is unknown, which looks the same from outside."""
    attempt = bench.boot().attempt().ready()
    hello = hello_of(bench, ticket=attempt.ticket)
    bench.clock.advance(60 + 3600)
    bench.ticket()
    assert bench.challenge_state(attempt.challenge.challenge_id) == "issued"
    bench.clock.advance(1)
    bench.ticket()
    assert refusal(bench, attempt.prove).outcome == ("challenge_gone", "challenge_unknown")
    assert refusal(bench, partial(greet, bench, hello)).outcome == ("challenge_gone", "ticket_expired")
    bench.clock.advance(540)
    bench.ticket()
    assert refusal(bench, partial(greet, bench, hello)).outcome == ("challenge_gone", "ticket_unknown")


def test_a_flood_of_one_address_does_not_become_a_flood_of_audit_rows(bench: Bench) -> None:
    for _ in range(500):
        with pytest.raises(Failure):
            bench.service.hello(b"", bench.caller())
    assert len(bench.audited()) <= bench.service._config.limits.burst + 10
