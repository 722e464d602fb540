"""Workers that fail end the enclave with their reason, whether they had served or not, and never end its first process."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from runtime.enclave import boot as steps
from runtime.enclave.process.workers import WorkerFailed
from runtime.enclave.stop import Stop


class Worker:
    """Fails after `seconds`, having served before or not."""

    def __init__(self, seconds: float, *, serves: bool) -> None:
        self.serving = trio.Event()
        self._seconds = seconds
        self._serves = serves

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        if self._serves:
            self.serving.set()
            task_status.started()
        await trio.sleep(self._seconds)
        raise WorkerFailed("worker_lost", "told to")


def running(nursery: trio.Nursery) -> Any:
    """As much of a boot as workers are started with."""
    return SimpleNamespace(nursery=nursery, stop=Stop(), worker_failure=None)


async def test_a_worker_that_never_serves_fails_the_step_that_started_it(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        boot = running(nursery)
        with pytest.raises(WorkerFailed) as caught:
            await steps._start(boot, *[Worker(1, serves=False) for _ in range(3)])  # type: ignore[arg-type] # stand-ins
        assert caught.value.reason == "worker_lost"
        assert boot.stop.asked.is_set()


async def test_a_worker_that_fails_after_it_has_served_asks_for_a_stop(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        boot = running(nursery)
        await steps._start(boot, Worker(5, serves=True), Worker(9, serves=True))  # type: ignore[arg-type] # stand-ins
        assert not boot.stop.asked.is_set()
        await boot.stop.asked.wait()
        assert trio.current_time() == pytest.approx(5)
        assert boot.worker_failure.reason == "worker_lost"
        assert boot.stop.seconds_left == 0
