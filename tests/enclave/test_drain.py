"""The drain as a rule about time: what waits for what, and until when."""

import math

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.drain import drain
from runtime.enclave.stop import GRACE, Stop


class Worker:
    def __init__(self, seconds: float) -> None:
        self.finished = trio.Event()
        self.seconds = seconds
        self.asked: list[float] = []

    def drain(self, seconds: float) -> None:
        self.asked.append(seconds)
        trio.lowlevel.spawn_system_task(self._finish)

    async def _finish(self) -> None:
        await trio.sleep(self.seconds)
        self.finished.set()


class Listener(trio.abc.AsyncResource):
    def __init__(self) -> None:
        self.closed_at = math.inf

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed_at = trio.current_time()


class Supervisor:
    """Processes that need `seconds` to end by themselves, and are killed at the nearest deadline that was given."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadlines: list[float] = []
        self.began = math.inf
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def stop(self, deadline: float) -> None:
        self.deadlines.append(deadline)
        self._scope.deadline = min(self._scope.deadline, deadline)
        if len(self.deadlines) == 1:
            self.began = trio.current_time()
            with self._scope:
                await trio.sleep(self.seconds)
            self._ended.set()
        await self._ended.wait()


async def test_with_nothing_in_flight_it_ends_at_once(autojump_clock: MockClock) -> None:
    stop, worker, listener, supervisor = Stop(), Worker(0), Listener(), Supervisor(0)
    stop.ask(3600)
    await drain(stop, [worker], [listener], supervisor, reserve=0)
    assert trio.current_time() == listener.closed_at == 0
    assert worker.asked == [3600]


async def test_processes_are_stopped_when_the_last_worker_has_finished(autojump_clock: MockClock) -> None:
    stop, supervisor = Stop(), Supervisor(2)
    stop.ask(20)
    await drain(stop, [Worker(5), Worker(7)], [], supervisor, reserve=2)
    assert (supervisor.began, trio.current_time()) == (7, 9)
    assert supervisor.deadlines == [20]


@pytest.mark.parametrize(("reserve", "began"), [(0, 10), (2, 8), (60, 8)])
async def test_what_never_ends_is_waited_for_until_the_deadline_but_for_the_reserve(
    reserve: float, began: float, autojump_clock: MockClock
) -> None:
    stop, supervisor = Stop(), Supervisor(1000)
    stop.ask(10)
    await drain(stop, [Worker(1000)], [], supervisor, reserve=reserve)
    assert supervisor.began == pytest.approx(began)
    assert trio.current_time() == pytest.approx(10)


async def test_a_second_drain_only_brings_the_deadline_forward(autojump_clock: MockClock) -> None:
    for second, ends in ((2.0, 5.0), (500.0, 10.0)):
        began = trio.current_time()
        stop, supervisor = Stop(), Supervisor(1000)
        stop.ask(10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: drain(stop, [Worker(1000)], [], supervisor, reserve=0))  # noqa: B023 - ended in this round
            await trio.sleep(3)
            stop.ask(second)
        assert trio.current_time() - began == pytest.approx(ends)


async def test_a_second_drain_hurries_processes_that_are_stopping_already(autojump_clock: MockClock) -> None:
    stop, supervisor = Stop(), Supervisor(1000)
    stop.ask(100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: drain(stop, [], [], supervisor, reserve=0))
        await trio.sleep(3)
        for seconds in (20, 50, 4):
            stop.ask(seconds)
            await trio.sleep(0)
    assert trio.current_time() == pytest.approx(7)
    assert supervisor.deadlines == [100, 23, 7]


async def test_a_stop_without_a_deadline_of_its_own_has_one(autojump_clock: MockClock) -> None:
    stop = Stop()
    stop.ask()
    assert stop.seconds_left == GRACE
    stop.ask(1)
    assert stop.seconds_left == 1
