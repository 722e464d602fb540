"""Renews what was released before it ends: a lease, and TLS identities on a new key, which are served from the next handshake on.

Runs in PID 1, beside everything else; a worker of the role "renew" speaks to the provisioner. A renewal that fails is told, and tried
again for ever: it closes nothing, since what was released goes on, and opens nothing.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from runtime.enclave.identity.handover import worker_identities
from runtime.enclave.process.workers import Worker, WorkerFailed
from runtime.protocol.bundle import Bundle, Lease
from runtime.protocol.errors import Malformed
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.worker_link import ConfirmNow, Released, WorkerIdentity

RETRY_LEAST = 60.0
RETRY_MOST = 3600.0
SECONDS_LEAST = 2.0
"""Between two renewals, whatever a provisioner asks for."""
CONFIRM_SECONDS = 30.0
_JITTER = 0.1  # of each wait, so that enclaves which were started together do not renew together


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What renewing needs of the boot. `worker` makes the one that renews a lease, `serve` gets the identities that came of it.

    `degrade` is told why renewals fail, "" when they do not; with `needs_identity` a release without one is a failure.
    """

    worker: Callable[[Lease], Worker]
    serve: Callable[[Sequence[WorkerIdentity]], None]
    degrade: Callable[[str], None]
    note: Callable[[str, JournalFields, Level], None]
    needs_identity: bool
    jitter: Callable[[], float] = random.random

    async def run(self, release: Released) -> None:
        """Renews `release`, and what comes of that, until it is cancelled."""
        failures = 0
        while True:
            seconds = max(SECONDS_LEAST, release.renew_after) if not failures else _pause_after(failures)
            await trio.sleep(seconds * (1 - _JITTER * self.jitter()))
            try:
                release = await self._renew(_lease(release))
            except (WorkerFailed, Malformed) as error:
                failures += 1
                self.note("renewal.failed", {"reason": error.reason, "attempt": failures}, "warning")
                self.degrade(error.reason)
            else:
                failures = 0
                self.degrade("")

    async def _renew(self, lease: Lease) -> Released:
        """Raises `WorkerFailed` or `Malformed`; nothing has changed then."""
        worker = self.worker(lease)
        async with trio.open_nursery() as nursery:
            failure = await nursery.start(partial(_run, worker))
            if failure is None:
                assert worker.release is not None
                failure = self._take(worker.release)
            if failure is None:
                worker.tell(ConfirmNow("live"))
                with trio.move_on_after(CONFIRM_SECONDS):
                    await worker.finished.wait()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        assert worker.release is not None
        return worker.release

    def _take(self, release: Released) -> WorkerFailed | Malformed | None:
        try:
            bundle = Bundle.decode(release.bundle)
        except Malformed as error:
            return error
        identities = worker_identities(bundle.identities, release)
        if self.needs_identity and not identities:
            return WorkerFailed("no_certificate", "the renewed release holds no TLS identity")
        self.serve(identities)
        fields: JournalFields = {"lease": release.lease_id, "bundle": bundle.version, "identities": len(identities)}
        self.note("renewal.done", {**fields, "renew_after": release.renew_after}, "info")
        return None


def _lease(release: Released) -> Lease:
    bundle = Bundle.decode(release.bundle)
    return Lease(lease_id=release.lease_id, key=bundle.lease_key, bundle_version=bundle.version)


def _pause_after(failures: int) -> float:
    return min(RETRY_MOST, RETRY_LEAST * 2.0 ** min(failures - 1, 10))


async def _run(worker: Worker, *, task_status: trio.TaskStatus[WorkerFailed | None]) -> None:
    """Runs the worker; tells None when it has a release, else why it has none. What befalls it later costs a confirm at most."""
    released = _Released(task_status)
    try:
        await worker.run(task_status=released)
    except WorkerFailed as error:
        if worker.release is None:
            task_status.started(error)


@dataclass(frozen=True, slots=True)
class _Released:
    """Tells that there is a release, to who waits for that or for a failure."""

    status: trio.TaskStatus[WorkerFailed | None]

    def started(self, value: None = None) -> None:
        """There is one."""
        self.status.started(value)
