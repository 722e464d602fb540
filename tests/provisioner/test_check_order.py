"""Section 1.4 is an order: with any two faults at once, the audit log has the reason of the check that comes first."""

from collections.abc import Iterator

import pytest

from runtime.provisioner.records import EnclaveRecord
from tests.provisioner.faults import FAULTS, PAIRS, Fault
from tests.provisioner.forgery import paper
from tests.provisioner.refusals import refuse_evidence
from tests.support import documents
from tests.support.prov import ADDRESS, Attempt, Bench, Clock, record

GONE = {"challenge_expired", "ticket_expired"}
CODES = {"record_inactive": "revoked", "lease_quota": "busy"} | dict.fromkeys(GONE, "challenge_gone")


def reset(bench: Bench) -> None:
    """Record, clock and leases as they were at first."""
    bench.put(**{name: getattr(record(), name) for name in EnclaveRecord.__slots__})
    bench.clock.unix = Clock().unix
    with bench.store.transaction() as db:
        db.execute("DELETE FROM leases")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One bench for all pairs: each takes a ticket of its own."""
    bench = Bench(tmp_path_factory.mktemp("order"), roots=[documents.trusted_root()])
    yield bench
    bench.close()


@pytest.fixture
def forging(shared: Bench) -> Bench:
    reset(shared)
    return shared


def faulty(bench: Bench, *faults: Fault) -> tuple[Attempt, str]:
    """An attempt with all the faults, up to its evidence, and the address to send that from."""
    ticket = bench.ticket()
    bench.clock.advance(sum(fault.before for fault in faults))
    attempt = bench.boot().attempt(ticket=ticket)
    attempt.greet()
    attempt.commit(request=next((fault.request for fault in faults if fault.request), None))
    if any(fault.reuses for fault in faults):
        rival = bench.boot(boot_id=b"\x0e" * 16).attempt(ticket=ticket)
        rival.greet()
        rival.commit()
        rival.prove(rival.handshake.evidence(paper(rival).write()))
    bench.clock.advance(sum(fault.after for fault in faults))
    written = paper(attempt)
    for fault in faults:
        fault.paper(written)
        bench.put(**fault.record)
    attempt.message = attempt.handshake.evidence(written.write())
    return attempt, next((fault.address for fault in faults if fault.address), ADDRESS)


def refuse(bench: Bench, *faults: Fault) -> None:
    """All the faults, and the reason of the first."""
    attempt, address = faulty(bench, *faults)
    reason = faults[0].reason
    code, alarm = CODES.get(reason, "refused"), reason == "ticket_reused"
    refuse_evidence(attempt, address=address, code=code, reason=reason, alarm=alarm)


def test_without_a_fault_there_is_a_release(forging: Bench) -> None:
    attempt, address = faulty(forging)
    attempt.opened(attempt.prove(address=address))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_alone_has_its_reason(forging: Bench, fault: Fault) -> None:
    refuse(forging, fault)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{one.name}, {other.name}" for one, other in PAIRS])
def test_of_two_faults_the_one_that_is_checked_first_is_audited(forging: Bench, first: Fault, second: Fault) -> None:
    refuse(forging, first, second)


def test_everything_wrong_at_once_is_refused_for_the_first(forging: Bench) -> None:
    """From each check on, everything that can be wrong together."""
    for place, fault in enumerate(FAULTS):
        refuse(forging, fault, *(later for later in FAULTS[place + 1 :] if later.name != "from the future"))
        reset(forging)
