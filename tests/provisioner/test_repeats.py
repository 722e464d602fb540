"""What must happen once: a challenge is judged once, a ticket earns one lease, and a lost answer can still be fetched for a minute."""

import pytest

from runtime.protocol.messages import Evidence, Hello
from tests.provisioner.refusals import refusal, refuse_evidence
from tests.support.prov import ENCLAVE_ID, OTHER_IMAGE, Attempt, Bench


def again(attempt: Attempt) -> bytes:
    """Evidence for the same challenge with another document of the same module: as right as the first, and other bytes."""
    first = Evidence.decode(attempt.message)
    other = Evidence(challenge_id=first.challenge_id, document=attempt.document(), hpke_public_key=first.hpke_public_key)
    assert other.encode() != attempt.message
    return other.encode()


@pytest.mark.parametrize("seconds", [0.0, 59.0, 60.0])
def test_the_same_evidence_within_a_minute_gets_the_very_same_release(bench: Bench, seconds: float) -> None:
    attempt = bench.boot().attempt()
    release = attempt.run()
    bench.clock.advance(seconds)
    for connection in (attempt.connection, bench.connect(), bench.connect()):
        assert attempt.prove(connection=connection, address="203.0.113.9") == release
    assert bench.leases() == [(ENCLAVE_ID, "issued")]
    assert bench.bundle_version() == 1
    assert [entry.event for entry in bench.audited()[-4:]] == ["released", "repeated", "repeated", "repeated"]
    assert bench.audited()[-1].detail["challenge_id"] == attempt.challenge.challenge_id.hex()
    attempt.opened(release)


@pytest.mark.parametrize("seconds", [61.0, 3600.0])
def test_the_same_evidence_later_finds_the_challenge_gone(bench: Bench, seconds: float) -> None:
    attempt = bench.boot().attempt()
    attempt.run()
    bench.clock.advance(seconds)
    assert refusal(bench, attempt.prove).outcome == ("challenge_gone", "challenge_used")
    assert bench.challenge_state(attempt.challenge.challenge_id) == "released"


def test_a_repeat_is_answered_without_evaluating_anything(bench: Bench) -> None:
    """The sealed reply is of use to one key alone, whatever became of the record since."""
    attempt = bench.boot().attempt()
    release = attempt.run()
    bench.put(epoch_floor=8, strict_source_ip=True, lease_quota=0)
    assert attempt.prove(address="203.0.113.9") == release
    assert bench.audited()[-1].event == "repeated"


def test_a_release_is_not_given_again_once_the_record_was_revoked(bench: Bench) -> None:
    """A parent that kept back the first answer does not get a second one past the owner's word."""
    attempt = bench.boot().attempt()
    release = attempt.run()
    bench.put(status="revoked")
    assert refusal(bench, attempt.prove).outcome == ("revoked", "record_inactive")
    bench.put(status="active")
    assert attempt.prove() == release


def test_other_evidence_on_a_challenge_that_earned_its_release_gets_nothing(bench: Bench) -> None:
    attempt = bench.boot().attempt()
    attempt.run()
    second = again(attempt)
    assert refusal(bench, lambda: attempt.prove(second)).outcome == ("challenge_gone", "challenge_used")
    assert bench.leases() == [(ENCLAVE_ID, "issued")]


def test_good_evidence_after_bad_on_one_challenge_gets_nothing(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    good = Evidence.decode(attempt.message)
    bad = Evidence(challenge_id=good.challenge_id, document=good.document[:-1] + b"\0", hpke_public_key=good.hpke_public_key)
    refuse_evidence(attempt, message=bad.encode(), code="refused", reason="doc_signature")
    assert refusal(bench, attempt.prove).outcome == ("challenge_gone", "challenge_used")
    fresh = attempt.boot.attempt(ticket=attempt.ticket)
    fresh.opened(fresh.run())  # a refusal spends the challenge, not the ticket


def test_evidence_for_no_challenge_gets_nothing(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    good = Evidence.decode(attempt.message)
    unknown = Evidence(challenge_id=bytes(16), document=good.document, hpke_public_key=good.hpke_public_key)
    assert refusal(bench, lambda: attempt.prove(unknown.encode())).outcome == ("challenge_gone", "challenge_unknown")
    assert bench.challenge_state(attempt.challenge.challenge_id) == "issued"


@pytest.mark.parametrize(("seconds", "is_late"), [(59.9, False), (60.0, True), (300.0, True)])
def test_a_challenge_lives_for_a_minute(bench: Bench, seconds: float, is_late: bool) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    bench.clock.advance(seconds)
    attempt.evidence()
    if is_late:
        refuse_evidence(attempt, code="challenge_gone", reason="challenge_expired")
    else:
        attempt.opened(attempt.prove())


def test_a_ticket_that_ends_between_hello_and_evidence_earns_nothing(bench: Bench) -> None:
    ticket = bench.ticket()
    bench.clock.advance(570)
    attempt = bench.boot().attempt(ticket=ticket)
    attempt.greet()
    bench.clock.advance(30)
    attempt.evidence()
    refuse_evidence(attempt, code="challenge_gone", reason="ticket_expired")


# One ticket


def test_a_ticket_with_another_key_is_refused_and_raises_an_alarm(bench: Bench) -> None:
    """Two boots of the right image, one ticket, both challenges open: the first key has it, the second is what no honest enclave sends."""
    ticket = bench.ticket()
    first, second = (bench.boot(boot_id=bytes([number]) * 16).attempt(ticket=ticket).ready() for number in (1, 2))
    release = first.prove()
    refused = refuse_evidence(second, code="refused", reason="ticket_reused", alarm=True)
    assert refused.entry.enclave_id == ENCLAVE_ID
    assert refused.entry.detail["boot_id"] == (b"\x02" * 16).hex()
    assert bench.leases() == [(ENCLAVE_ID, "issued")]
    first.opened(release)


def test_a_ticket_with_the_same_key_on_another_challenge_is_gone_without_an_alarm(bench: Bench) -> None:
    boot, ticket = bench.boot(), bench.ticket()
    first, second = (boot.attempt(ticket=ticket) for _ in range(2))
    first.ready()
    second.ready()
    release = first.prove()
    refuse_evidence(second, code="challenge_gone", reason="challenge_used")
    assert not any(entry.alarm for entry in bench.audited())
    assert bench.leases() == [(ENCLAVE_ID, "issued")]
    first.opened(release)


def test_evidence_that_is_refused_spends_no_ticket_for_another_key(bench: Bench) -> None:
    ticket = bench.ticket()
    wrong, right = bench.boot(pcrs=OTHER_IMAGE).attempt(ticket=ticket).ready(), bench.boot().attempt(ticket=ticket).ready()
    refuse_evidence(wrong, code="refused", reason="measurement_unknown")
    right.opened(right.prove())


def test_hello_with_a_spent_ticket_looks_like_one_with_an_unknown_ticket(bench: Bench) -> None:
    """Outside it is gone like any other; only the audit log knows that somebody has spent it."""
    attempt = bench.boot().attempt()
    attempt.run()
    spent = Hello.decode(attempt.boot.attempt(ticket=attempt.ticket).hello())
    unknown = Hello.decode(attempt.boot.attempt(ticket=bytes(32)).hello())
    answers = {}
    for name, hello in (("spent", spent), ("unknown", unknown)):
        refused = refusal(bench, lambda hello=hello: bench.service.hello(hello.encode(), bench.caller()))  # type: ignore[misc]
        answers[name] = (refused.code, refused.retry_after)
        assert refused.entry.reason == {"spent": "ticket_reused", "unknown": "ticket_unknown"}[name]
    assert answers["spent"] == answers["unknown"] == ("challenge_gone", None)
