"""The lease quota: a bound on the enclaves that hold secrets, whatever parents do with a confirm, and no way to keep out another parent."""

from functools import partial

import pytest

from tests.provisioner.refusals import refusal, refuse_evidence
from tests.support.prov import ENCLAVE_ID, PARENT_KEY, Attempt, Bench, record

OTHER_PARENT = "5a" * 48
THIRD_PARENT = "3c" * 48


def attempt(bench: Bench, parent: str = PARENT_KEY) -> Attempt:
    """A boot up to its evidence, behind one of the parents."""
    return bench.boot().attempt(ticket=bench.ticket(parent=parent)).ready()


def run(bench: Bench, parent: str = PARENT_KEY) -> Attempt:
    """A boot up to its release; nobody has confirmed it."""
    found = attempt(bench, parent)
    found.opened(found.prove())
    return found


def refuse(bench: Bench, parent: str = PARENT_KEY) -> None:
    refuse_evidence(attempt(bench, parent), code="busy", reason="lease_quota")


def test_the_quota_of_leases_is_kept_and_the_peer_is_told_when_to_come_back(bench: Bench) -> None:
    bench.put(lease_quota=2)
    run(bench).confirm()
    run(bench).confirm()
    refused = refuse_evidence(attempt(bench), code="busy", reason="lease_quota")
    assert refused.retry_after == 60
    assert "2 of 2 leases" in refused.entry.detail["why"]
    assert len(bench.leases()) == 2


def test_a_parent_that_holds_back_every_confirm_gets_no_more_than_the_quota(bench: Bench) -> None:
    """Each of these enclaves may be running with its secrets, for all that the provisioner knows."""
    bench.put(lease_quota=3, lease_seconds=3600)
    for _ in range(3):
        run(bench)
        bench.clock.advance(61)
    for seconds in (0, 61, 600):
        bench.clock.advance(seconds)
        refuse(bench)
    assert bench.leases() == [(ENCLAVE_ID, "issued")] * 3


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_a_lease_counts_until_its_end(bench: Bench, is_confirmed: bool) -> None:
    bench.put(lease_quota=1, lease_seconds=3600)
    first = run(bench)
    if is_confirmed:
        first.confirm("live")
    bench.clock.advance(3599)
    refuse(bench)
    bench.clock.advance(1)
    run(bench)


def test_a_lease_of_an_enclave_that_failed_is_given_back_at_once(bench: Bench) -> None:
    bench.put(lease_quota=1)
    run(bench).confirm("failed")
    run(bench)


def test_only_the_enclave_itself_can_say_that_it_failed(bench: Bench) -> None:
    """Otherwise a parent would say so and keep the enclave."""
    bench.put(lease_quota=1)
    run(bench)
    with bench.store.transaction() as db:
        lease_id = db.execute("SELECT lease_id FROM leases").fetchone()[0]
    forged = b"\xa3\x00\x50" + lease_id + b"\x01\x66failed\x02\x58\x30" + bytes(48)
    assert refusal(bench, lambda: bench.service.confirm(forged, bench.caller())).outcome == ("refused", "confirm_proof")
    refuse(bench)


def test_one_enclaves_leases_do_not_count_for_another(bench: Bench) -> None:
    bench.put(lease_quota=1)
    bench.store.put_record(record(enclave_id="billing", lease_quota=1))
    run(bench)
    other = bench.boot(enclave_id="billing").attempt(ticket=bench.ticket(enclave_id="billing"))
    other.opened(other.run())
    assert sorted(bench.leases()) == [("billing", "issued"), (ENCLAVE_ID, "issued")]


def test_one_parent_cannot_take_the_whole_quota_from_another(bench: Bench) -> None:
    bench.put(parents=(PARENT_KEY, OTHER_PARENT), lease_quota=4)
    for outcome in (None, "live"):
        found = run(bench)
        if outcome:
            found.confirm()
    refuse(bench)
    run(bench, OTHER_PARENT)
    run(bench, OTHER_PARENT)
    refuse(bench, OTHER_PARENT)


def test_the_shares_are_rounded_up_and_the_whole_is_kept(bench: Bench) -> None:
    bench.put(parents=(PARENT_KEY, OTHER_PARENT, THIRD_PARENT), lease_quota=4)
    for parent in (PARENT_KEY, PARENT_KEY, OTHER_PARENT, OTHER_PARENT):
        run(bench, parent)
    for parent in (PARENT_KEY, OTHER_PARENT, THIRD_PARENT):
        refuse(bench, parent)


def test_a_parent_that_the_owner_removes_leaves_its_place_to_the_next(bench: Bench) -> None:
    """The only parent turned hostile and used up the quota: the owner names another one and is not kept out."""
    bench.put(lease_quota=2)
    run(bench)
    run(bench)
    refuse(bench)
    bench.put(parents=(OTHER_PARENT,))
    run(bench, OTHER_PARENT)
    assert refusal(bench, partial(bench.ticket, parent=PARENT_KEY)).outcome == ("refused", "parent_unknown")


@pytest.mark.parametrize("step", ["hello", "evidence"])
def test_a_ticket_of_a_parent_that_was_removed_buys_nothing(bench: Bench, step: str) -> None:
    found = bench.boot().attempt()
    if step == "evidence":
        found.ready()
    bench.put(parents=(OTHER_PARENT,))
    if step == "evidence":
        refuse_evidence(found, code="refused", reason="parent_unknown")
    else:
        assert refusal(bench, found.greet).outcome == ("refused", "parent_unknown")
