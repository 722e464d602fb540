"""When PID 1 renews, what it does with what comes of it, and that a failure changes nothing but the state."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.process.workers import Worker
from runtime.enclave.renewal import CONFIRM_SECONDS, RETRY_LEAST, RETRY_MOST, SECONDS_LEAST, Renewal
from runtime.protocol.bundle import Bundle, DeliveredIdentity, Lease, SecretValue
from runtime.protocol.worker_link import Configure, ConfirmNow, Failed, Finished, Released, WorkerIdentity
from tests.enclave.worker.bench import CONFIG, Bench, Played, PlayedForkServer, bench


def release(number: int, *, renew_after: int = 1000, identities: int = 1) -> Released:
    """The release of a number, as a worker hands it over."""
    chains = (DeliveredIdentity(names=("app.example",), chain=(b"leaf %d" % number,)),) * identities
    bundle = Bundle(version=number, lease_key=SecretValue(bytes([number]) * 32), secrets={}, identities=chains)
    return Released(bundle.encode(), bytes([number]) * 16, b"key %d" % number, renew_after)


@dataclass
class Renewing:
    """A renewal whose workers the test plays."""

    on: Bench
    fork_server: PlayedForkServer
    needs_identity: bool = True
    served: list[Sequence[WorkerIdentity]] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)

    async def run(self) -> None:
        def worker(lease: Lease) -> Worker:
            return Worker("renew", self.on.services, lambda: Configure("renew", CONFIG, bytes(16), "unix:/x", (), False, 1, lease))

        await Renewal(
            worker=worker,
            serve=self.served.append,
            degrade=self.degraded.append,
            note=self.on.services.note,
            needs_identity=self.needs_identity,
            jitter=lambda: 0.0,
        ).run(release(1))

    async def next(self) -> tuple[Played, Lease]:
        """The next worker, and the lease that it is to renew."""
        played = await self.fork_server.workers.receive()
        configure = await played.hear()
        assert isinstance(configure, Configure)
        assert configure.lease is not None
        return played, configure.lease

    async def fail(self, reason: str) -> float:
        """The next worker fails; when it was started."""
        played, _ = await self.next()
        at = trio.current_time()
        await played.say(Failed(reason, "so it is"))
        return at


@pytest.fixture
async def renewing() -> AsyncGenerator[Renewing]:
    fork_server = PlayedForkServer()
    async with bench(fork_server) as on:
        async with trio.open_nursery() as nursery:
            made = Renewing(on, fork_server)
            nursery.start_soon(made.run)
            yield made
            nursery.cancel_scope.cancel()
        await fork_server.aclose()


async def test_a_release_is_renewed_in_time_and_what_comes_of_it_is_served_and_renewed_next(
    renewing: Renewing, autojump_clock: MockClock
) -> None:
    for number in (1, 2, 3):
        began = trio.current_time()
        played, lease = await renewing.next()
        assert trio.current_time() - began == pytest.approx(1000, abs=1)
        assert lease == Lease(lease_id=bytes([number]) * 16, key=SecretValue(bytes([number]) * 32), bundle_version=number)
        await played.say(release(number + 1))
        assert await played.hear() == ConfirmNow("live")
        leaf, key = b"leaf %d" % (number + 1), b"key %d" % (number + 1)
        assert renewing.served[-1] == [WorkerIdentity(("app.example",), (leaf,), key)]
        await played.say(Finished())
        await played.stream.aclose()
    assert set(renewing.degraded) <= {""}
    assert "renewal.failed" not in renewing.on.events()


async def test_failures_are_told_and_tried_again_later_and_later_and_end_with_the_first_success(
    renewing: Renewing, autojump_clock: MockClock
) -> None:
    times = [await renewing.fail("provisioner_revoked") for _ in range(9)]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == [pytest.approx(min(RETRY_MOST, RETRY_LEAST * 2**number), abs=1) for number in range(8)]
    assert renewing.served == []
    played, lease = await renewing.next()
    assert lease.bundle_version == 1, "of the release that there is"
    await played.say(release(2))
    await played.hear()
    await played.say(Finished())
    await played.stream.aclose()
    await renewing.next()
    assert renewing.degraded == [*9 * ["provisioner_revoked"], ""]
    attempts = [fields["attempt"] for event, fields, _ in renewing.on.journal if event == "renewal.failed"]
    assert attempts == list(range(1, 10))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Released(b"no bundle", bytes(16), None, 5), "truncated"),
        (release(2, identities=0), "no_certificate"),
        (Failed("tls_name", "somebody else"), "tls_name"),
        (None, "renew_worker_lost"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_what_is_no_release_changes_nothing_that_is_served(
    renewing: Renewing, autojump_clock: MockClock, said: Released | Failed | None, reason: str
) -> None:
    played, lease = await renewing.next()
    if said is not None:
        await played.say(said)
    else:
        await played.stream.aclose()
    await renewing.on.until("renewal.failed")
    assert [fields for event, fields, _ in renewing.on.journal if event == "renewal.failed"] == [{"reason": reason, "attempt": 1}]
    assert (renewing.served, renewing.degraded) == ([], [reason])
    assert (await renewing.next())[1] == lease


async def test_a_confirm_that_does_not_come_through_costs_nothing(renewing: Renewing, autojump_clock: MockClock) -> None:
    played, _ = await renewing.next()
    await played.say(release(2))
    began = trio.current_time()
    await played.killed.wait()
    assert trio.current_time() - began == pytest.approx(CONFIRM_SECONDS, abs=1)
    _, lease = await renewing.next()
    assert lease.bundle_version == 2
    assert renewing.degraded == [""]


async def test_a_provisioner_that_wants_a_renewal_at_once_gets_one_now_and_then(
    renewing: Renewing, autojump_clock: MockClock
) -> None:
    played, _ = await renewing.next()
    await played.say(release(2, renew_after=0))
    await played.hear()
    await played.say(Finished())
    await played.stream.aclose()
    began = trio.current_time()
    await renewing.next()
    assert trio.current_time() - began >= SECONDS_LEAST - 1
