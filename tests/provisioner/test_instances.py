"""A record that lists instances: an enclave gets nothing on another one, whatever its parent says and whenever the list is made."""

from functools import partial
from typing import Any

import pytest

from tests.provisioner.refusals import refusal, refuse_evidence
from tests.support.prov import INSTANCE, Bench, record

OTHER_INSTANCE = "i-0fedcba9876543210"


def test_a_listed_instance_gets_its_secrets(bench: Bench) -> None:
    bench.put(instances=(OTHER_INSTANCE, INSTANCE))
    attempt = bench.boot().attempt()
    attempt.opened(attempt.run())


@pytest.mark.parametrize("listed", [(), (OTHER_INSTANCE,), (INSTANCE[:-1],), (INSTANCE.upper(),)], ids=repr)
def test_an_instance_that_is_not_listed_gets_no_ticket(bench: Bench, listed: tuple[str, ...]) -> None:
    bench.put(instances=listed)
    refused = refusal(bench, bench.ticket)
    assert refused.outcome == ("refused", "instance_unknown")
    assert refused.entry.detail["instance_id"] == INSTANCE


def test_an_instance_that_is_taken_off_the_list_gets_no_challenge(bench: Bench) -> None:
    attempt = bench.boot().attempt()
    bench.put(instances=(OTHER_INSTANCE,))
    assert refusal(bench, attempt.greet).outcome == ("refused", "instance_unknown")


def test_an_instance_that_is_taken_off_the_list_gets_no_release(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    bench.put(instances=(OTHER_INSTANCE,))
    refuse_evidence(attempt, code="refused", reason="instance_unknown")


def test_a_parent_that_names_a_listed_instance_and_runs_on_another_is_found_out(bench: Bench) -> None:
    """The parent of the other instance knows what to say; the module of that instance does not say it."""
    bench.put(instances=(INSTANCE,))
    elsewhere = bench.boot(module_id=f"{OTHER_INSTANCE}-enc0123456789abcdef").attempt(ticket=bench.ticket(instance_id=INSTANCE))
    refuse_evidence(elsewhere.ready(), code="refused", reason="host_instance")


def test_whoever_names_no_parent_of_the_record_learns_nothing_of_its_instances(bench: Bench) -> None:
    bench.put(instances=(OTHER_INSTANCE,))
    assert refusal(bench, partial(bench.ticket, parent="5a" * 48)).outcome == ("refused", "parent_unknown")


@pytest.mark.parametrize("fields", [{}, {"instances": None}], ids=["not said", "any"])
def test_a_record_without_a_list_allows_any_instance(bench: Bench, fields: dict[str, Any]) -> None:
    bench.store.put_record(record(**fields))
    elsewhere = bench.boot(module_id=f"{OTHER_INSTANCE}-enc0123456789abcdef").attempt(
        ticket=bench.ticket(instance_id=OTHER_INSTANCE)
    )
    elsewhere.opened(elsewhere.run())


def test_a_record_of_before_there_were_lists_allows_any_instance(bench: Bench) -> None:
    with bench.store.transaction() as db:
        db.execute("UPDATE records SET data = json_remove(data, '$.instances')")
    found = bench.store.record(bench.record.enclave_id)
    assert found is not None
    assert found.instances is None
