"""Renewals: a boot that is live and holds the key of its lease gets another release; nobody else does, and nobody gets two leases."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from runtime.protocol.bundle import Lease, SecretValue
from runtime.protocol.messages import Evidence
from tests.provisioner.refusals import refusal
from tests.support.prov import NAMES, Attempt, Bench, Boot


def live(bench: Bench, **options: object) -> tuple[Boot, Lease]:
    """A boot that has opened its secrets."""
    boot = bench.boot(**options)
    lease = boot.attempt().held()
    boot.go_live()
    return boot, lease


def states(bench: Bench) -> list[str]:
    return [state for _, state in bench.leases()]


def ready(boot: Boot, lease: Lease) -> Attempt:
    boot.bench.clock.advance(1)
    return boot.attempt(lease=lease).ready()


def test_a_renewal_takes_the_place_of_the_lease_before(bench: Bench) -> None:
    boot, lease = live(bench, names=NAMES)
    for _ in range(3):
        bench.clock.advance(10)
        attempt = boot.attempt(lease=lease)
        renewed = attempt.opened(attempt.run(), last_bundle_version=lease.bundle_version)
        assert renewed.header.lease_id != lease.lease_id
        assert renewed.bundle.version > lease.bundle_version
        assert [identity.names for identity in renewed.bundle.identities] == [NAMES]
        assert states(bench)[-2:] == ["renewed", "live"]
        attempt.confirm()
        lease = Lease(lease_id=renewed.header.lease_id, key=renewed.bundle.lease_key, bundle_version=renewed.bundle.version)
    assert states(bench) == ["renewed", "renewed", "renewed", "live"]
    assert bench.audited()[-2].detail["renews"]


def test_a_boot_has_one_lease_however_often_it_renews(bench: Bench) -> None:
    bench.put(lease_quota=1)
    boot, lease = live(bench)
    for _ in range(3):  # the same lease each time: what was released in between has been lost on the way
        ready(boot, lease).prove()
    assert states(bench).count("live") == 1
    assert refusal(bench, bench.boot().attempt().ready().prove).outcome[1] == "lease_quota"


def test_an_enclave_cannot_give_back_what_it_has_renewed_and_run_on(bench: Bench) -> None:
    boot, lease = live(bench)
    attempt = ready(boot, lease)
    attempt.opened(attempt.prove())
    assert refusal(bench, lambda: attempt.confirm("failed")).outcome[1] == "confirm_changed"
    assert states(bench) == ["renewed", "live"]


def test_a_boot_that_is_not_live_yet_has_nothing_to_renew(bench: Bench) -> None:
    boot = bench.boot()
    lease = boot.attempt().held()
    assert refusal(bench, ready(boot, lease).prove).outcome[1] == "phase_not_live"
    boot.go_live()
    ready(boot, lease).prove()


def test_a_lease_key_that_was_stolen_is_of_no_use_to_another_boot(bench: Bench) -> None:
    _, lease = live(bench)
    thief, _ = live(bench)
    assert refusal(bench, ready(thief, lease).prove).outcome[1] == "phase_not_live"


def test_a_live_enclave_without_the_key_of_its_lease_gets_nothing(bench: Bench) -> None:
    """A customer process that has become root and speaks to the module itself."""
    boot, lease = live(bench)
    guessed = replace(lease, key=SecretValue(bytes(32)))
    assert refusal(bench, ready(boot, guessed).prove).outcome[1] == "lease_proof"
    attempt = ready(boot, lease)
    unproven = replace(Evidence.decode(attempt.message), lease_proof=None).encode()
    assert refusal(bench, lambda: attempt.prove(unproven)).outcome[1] == "lease_proof"


def test_a_live_enclave_cannot_say_that_it_boots(bench: Bench) -> None:
    boot, _ = live(bench)
    assert refusal(bench, boot.attempt().ready().prove).outcome[1] == "phase_not_setup"


def end(bench: Bench, _: Lease) -> None:
    bench.clock.advance(bench.record.lease_seconds)


def give_back(bench: Bench, lease: Lease) -> None:
    with bench.store.transaction() as db:
        db.execute("UPDATE leases SET state = 'failed' WHERE lease_id = ?", (lease.lease_id,))


def make_it_anothers(bench: Bench, lease: Lease) -> None:
    with bench.store.transaction() as db:
        db.execute("UPDATE leases SET enclave_id = 'another' WHERE lease_id = ?", (lease.lease_id,))


def forget(bench: Bench, lease: Lease) -> None:
    with bench.store.transaction() as db:
        db.execute("DELETE FROM leases WHERE lease_id = ?", (lease.lease_id,))


@pytest.mark.parametrize("change", [end, give_back, make_it_anothers, forget])
def test_a_lease_that_is_not_held_any_more_is_not_renewed(bench: Bench, change: Callable[[Bench, Lease], None]) -> None:
    boot, lease = live(bench)
    change(bench, lease)
    attempt = ready(boot, lease)
    assert refusal(bench, attempt.prove).outcome == ("refused", "lease_gone")


def test_a_lease_that_goes_while_its_renewal_is_judged_is_not_renewed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, lease = live(bench)
    attempt = ready(boot, lease)
    true_check = bench.store.require_free_lease

    def and_then_end(*arguments: object, **named: object) -> None:
        true_check(*arguments, **named)  # type: ignore[arg-type] # handed on as they came
        with bench.store.transaction() as db:
            db.execute("UPDATE leases SET expires = 0")

    monkeypatch.setattr(bench.store, "require_free_lease", and_then_end)
    assert refusal(bench, attempt.prove).outcome[1] == "lease_gone"


def test_a_revoked_record_renews_nothing(bench: Bench) -> None:
    boot, lease = live(bench)
    attempt = ready(boot, lease)
    bench.store.revoke(bench.record.enclave_id)
    assert refusal(bench, attempt.prove).outcome[1] == "record_inactive"
