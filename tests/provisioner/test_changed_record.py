"""A record that an operator changes while evidence is being judged: nothing is released by a record that is no longer the record."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from runtime.protocol.bundle import Secret, SecretValue
from runtime.provisioner.service import Failure
from tests.provisioner.refusals import refuse_evidence
from tests.support.prov import ENCLAVE_ID, Attempt, Bench, Connection, reference


class InterruptedConnection(Connection):
    """A connection in the middle of whose judgement `between` happens: its exporter is asked for after the record was read."""

    def __init__(self, connection: Connection, between: Callable[[], object]) -> None:
        self._connection = connection
        self._between = between

    def exporter(self, context: bytes) -> bytes:
        self._between()
        return self._connection.exporter(context)


def changing(attempt: Attempt, **changes: Any) -> Connection:
    """The attempt's connection, with a change of the record in the middle of the judgement."""
    return InterruptedConnection(attempt.connection, lambda: attempt.bench.put(**changes))


def test_a_revocation_between_judgement_and_grant_stops_the_release(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    refuse_evidence(attempt, code="revoked", reason="record_inactive", connection=changing(attempt, status="revoked"))


def test_a_record_that_is_gone_by_the_time_of_the_grant_releases_nothing(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()

    def remove() -> None:
        with bench.store.transaction() as db:
            db.execute("DELETE FROM records")

    with pytest.raises(Failure, match="revoked"):
        attempt.prove(connection=InterruptedConnection(attempt.connection, remove))
    assert bench.audited()[-1].reason == "record_inactive"
    assert bench.leases() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch_floor": 8},
        {"reference": reference({0: b"\x7f" * 48})},
        {"secrets": {"API_KEY": Secret(delivery="env", value=SecretValue(b"rotated"))}},
        {"parents": ()},
        {"names": ()},
        {"lease_quota": 17},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_evidence_that_was_judged_by_another_record_releases_nothing(bench: Bench, changes: dict[str, Any]) -> None:
    attempt = bench.boot().attempt().ready()
    refuse_evidence(attempt, code="challenge_gone", reason="record_changed", connection=changing(attempt, **changes))


def test_the_next_attempt_is_judged_by_the_changed_record(bench: Bench) -> None:
    """The ticket is not spent by a release that was not made, and the secrets that come are the new ones."""
    attempt = bench.boot().attempt().ready()
    rotated = {"API_KEY": Secret(delivery="env", value=SecretValue(b"rotated"))}
    refuse_evidence(
        attempt, code="challenge_gone", reason="record_changed", connection=changing(attempt, epoch_floor=7, secrets=rotated)
    )
    again = bench.boot().attempt(ticket=attempt.ticket)
    assert dict(again.opened(again.run()).bundle.secrets) == rotated


def test_a_record_that_is_written_again_unchanged_stops_nothing(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    attempt.opened(attempt.prove(connection=changing(attempt, status="active")))


def test_two_operators_at_once_lose_nothing_of_each_other(bench: Bench) -> None:
    """A revocation is of the record as it is, not as it was read; and a new record never takes the place of another by accident."""
    bench.put(lease_quota=3)
    assert bench.store.revoke(ENCLAVE_ID)
    assert bench.store.record(ENCLAVE_ID) == replace(bench.record, status="revoked")
    assert not bench.store.put_record(bench.record, is_new=True)
    assert bench.store.record(ENCLAVE_ID) == replace(bench.record, status="revoked")
    assert bench.store.put_record(replace(bench.record, enclave_id="billing"), is_new=True)
    assert not bench.store.revoke("nobody")
