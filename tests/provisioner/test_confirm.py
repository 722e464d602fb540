"""The confirm of a lease: only by who opened it, in its minute, and with an outcome that is final."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from runtime.protocol.handshake import confirm_proof
from runtime.protocol.messages import Confirm, Outcome
from tests.provisioner.refusals import refusal
from tests.support.prov import ENCLAVE_ID, Attempt, Bench


def released(bench: Bench) -> tuple[Attempt, Confirm]:
    """An attempt whose release was opened, and its confirm message, not sent."""
    attempt = bench.boot().attempt()
    attempt.opened(attempt.run())
    return attempt, Confirm.decode(attempt.handshake.confirm("live"))


def confirm(bench: Bench, message: Confirm) -> bytes:
    return bench.service.confirm(message.encode(), bench.caller())


def with_outcome(bench: Bench, message: Confirm, outcome: Outcome) -> Confirm:
    """The same lease, another outcome, the right proof: what only the enclave itself could send."""
    with bench.store.transaction() as db:
        row = db.execute("SELECT lease_key, transcript FROM leases WHERE lease_id = ?", (message.lease_id,)).fetchone()
    proof = confirm_proof(row["lease_key"], row["transcript"], message.lease_id, outcome)
    return Confirm(lease_id=message.lease_id, outcome=outcome, proof=proof)


@pytest.mark.parametrize(
    "change",
    [{"proof": bytes(48)}, {"outcome": "failed"}, {"proof": b"\xff" * 48}],
    ids=["zeros", "the proof of another outcome", "ones"],
)
def test_a_confirm_without_the_lease_key_is_refused_and_changes_nothing(bench: Bench, change: dict[str, Any]) -> None:
    _, message = released(bench)
    assert refusal(bench, lambda: confirm(bench, replace(message, **change))).outcome == ("refused", "confirm_proof")
    assert bench.leases() == [(ENCLAVE_ID, "issued")]
    assert confirm(bench, message) == b""


def test_a_proof_with_any_bit_changed_is_refused(bench: Bench) -> None:
    _, message = released(bench)
    for position in range(48):
        proof = bytearray(message.proof)
        proof[position] ^= 1 << position % 8
        wrong = replace(message, proof=bytes(proof))
        assert refusal(bench, partial(confirm, bench, wrong)).outcome == ("refused", "confirm_proof")


def test_a_proof_is_of_one_lease_alone(bench: Bench) -> None:
    _, first = released(bench)
    _, second = released(bench)
    crossed = Confirm(lease_id=second.lease_id, outcome="live", proof=first.proof)
    assert refusal(bench, lambda: confirm(bench, crossed)).outcome == ("refused", "confirm_proof")


def test_a_confirm_for_no_lease_is_refused(bench: Bench) -> None:
    _, message = released(bench)
    unknown = Confirm(lease_id=bytes(16), outcome="live", proof=message.proof)
    assert refusal(bench, lambda: confirm(bench, unknown)).outcome == ("challenge_gone", "lease_unknown")


@pytest.mark.parametrize(("seconds", "is_taken"), [(59.0, True), (60.0, True), (61.0, False)])
def test_a_lease_is_confirmed_within_sixty_seconds_or_given_back(bench: Bench, seconds: float, is_taken: bool) -> None:
    _, message = released(bench)
    bench.clock.advance(seconds)
    if is_taken:
        confirm(bench, message)
    else:
        assert refusal(bench, lambda: confirm(bench, message)).outcome == ("challenge_gone", "confirm_late")
    assert bench.leases() == [(ENCLAVE_ID, "live" if is_taken else "issued")]


def test_a_repeated_confirm_is_answered_as_the_first_also_later(bench: Bench) -> None:
    _, message = released(bench)
    for seconds in (0.0, 30.0, 600.0):
        bench.clock.advance(seconds)
        assert confirm(bench, message) == b""
    assert bench.leases() == [(ENCLAVE_ID, "live")]


@pytest.mark.parametrize(("first", "second"), [("live", "failed"), ("failed", "live")])
def test_an_outcome_is_final(bench: Bench, first: Outcome, second: Outcome) -> None:
    _, message = released(bench)
    confirm(bench, with_outcome(bench, message, first))
    changed = with_outcome(bench, message, second)
    assert refusal(bench, lambda: confirm(bench, changed)).outcome == ("refused", "confirm_changed")
    assert bench.leases() == [(ENCLAVE_ID, first)]


def test_a_malformed_confirm_is_refused(bench: Bench) -> None:
    _, message = released(bench)
    assert refusal(bench, lambda: bench.service.confirm(message.encode() + b"\0", bench.caller())).outcome == (
        "malformed",
        "malformed",
    )
