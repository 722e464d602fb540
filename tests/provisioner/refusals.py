"""How a refusal is asserted: the code outside, the reason in the audit log, nothing released, the challenge consumed."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from runtime.provisioner.audit import AuditEntry
from runtime.provisioner.service import Failure
from tests.support.prov import ADDRESS, Attempt, Bench, Connection


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the peer learned, and what the audit log did."""

    code: str
    retry_after: int | None
    entry: AuditEntry

    @property
    def outcome(self) -> tuple[str, str | None]:
        """(code, reason)"""
        return self.code, self.entry.reason


def refusal(bench: Bench, request: Callable[[], object]) -> Refusal:
    """A request that fails, with the one entry that it leaves."""
    before = len(bench.audited())
    leases = bench.leases()
    with pytest.raises(Failure) as failed:
        request()
    entries = bench.audited()[before:]
    assert [entry.event for entry in entries] == ["refused"]
    assert entries[0].detail["code"] == failed.value.code
    assert bench.leases() == leases
    return Refusal(code=failed.value.code, retry_after=failed.value.retry_after, entry=entries[0])


def refuse_evidence(
    attempt: Attempt,
    *,
    code: str,
    reason: str,
    alarm: bool = False,
    message: bytes | None = None,
    connection: Connection | None = None,
    address: str = ADDRESS,
) -> Refusal:
    """Evidence that is judged and refused. The same bytes once more find that the challenge is gone."""
    bench, challenge_id = attempt.bench, attempt.challenge.challenge_id
    version = bench.bundle_version(attempt.boot.claims.enclave_id)

    def prove() -> bytes:
        return attempt.prove(message, connection=connection, address=address)

    refused = refusal(bench, prove)
    assert (refused.outcome, refused.entry.alarm) == ((code, reason), alarm)
    assert refused.entry.detail["challenge_id"] == challenge_id.hex()
    assert bench.challenge_state(challenge_id) == "refused"
    assert bench.bundle_version(attempt.boot.claims.enclave_id) == version
    assert refusal(bench, prove).outcome == ("challenge_gone", "challenge_used")
    return refused
