"""Timekeeping over hours of mock time: the genuine module's documents, a clock that drifts, a module that fails and comes back."""

import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.config import Limits
from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.identity.timekeeping import INTERVAL, SAMPLES, ClockFailed, Timekeeper
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.nsm import Attest, NsmErrorCode
from runtime.simulator.clock import SimulatedClock
from runtime.simulator.nsm import Faults, SimulatedNsm, make_module_id
from runtime.simulator.pki import make_root

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
LIMITS = Limits(clock_age=300.0, clock_offset=0.5)


def true_time() -> float:
    return START.timestamp() + trio.current_time()


class Device:
    """A module that answers each request as late as `delay` says: so many seconds on the way there, and so many back."""

    is_occupied = False

    def __init__(self, module: SimulatedNsm, delay: Callable[[], tuple[float, float]]) -> None:
        self.module = module
        self.delay = delay
        self.stall: trio.Event | None = None
        self.calls: list[float] = []

    async def exchange(self, request: bytes) -> bytes:
        self.calls.append(trio.current_time())
        there, back = self.delay()
        await trio.sleep(there)
        if self.stall is not None:
            self.is_occupied = True
            try:
                await self.stall.wait()
            finally:
                self.is_occupied = False
        answer = self.module.handle(request)
        await trio.sleep(back)
        return answer


class Clock(SimulatedClock):
    """A machine's clock that is wrong by `offset` at first and gains `drift` seconds a second, and says what was done to it."""

    is_ours = True

    def __init__(self, offset: float, drift: float) -> None:
        super().__init__(offset, host=lambda: START.timestamp() + trio.current_time() * (1 + drift))
        self.steps: list[float] = []
        self.slews: list[float] = []
        self.refusal: OSError | None = None

    def step(self, seconds: float) -> None:
        self._refuse()
        self.steps.append(seconds)
        super().step(seconds)

    def slew(self, seconds: float) -> None:
        self._refuse()
        self.slews.append(seconds)
        super().slew(seconds)

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@dataclass(kw_only=True)
class Kept:
    """A timekeeper at work, and what came of it."""

    timekeeper: Timekeeper
    clock: Clock
    device: Device
    notes: list[tuple[str, JournalFields, Level]] = field(default_factory=list)
    held: str = ""

    def events(self) -> list[tuple[str, object]]:
        return [(event, fields.get("reason", "")) for event, fields, _ in self.notes]

    @property
    def wrong(self) -> float:
        return self.clock.read() - true_time()


def kept(
    *, offset: float = 0.0, drift: float = 0.0, delay: Callable[[], tuple[float, float]] = lambda: (0.01, 0.01), jitter: float = 0.5
) -> Kept:
    root = make_root(now=START - timedelta(days=1))
    module = SimulatedNsm(
        root,
        module_id=make_module_id("i-0123456789abcdef0"),
        pcrs={},
        now=lambda: START + timedelta(seconds=trio.current_time()),
    )
    device, clock = Device(module, delay), Clock(offset, drift)

    def hold(reason: str) -> None:
        made.held = reason

    timekeeper = Timekeeper(
        Nsm(device),
        clock,
        LIMITS,
        note=lambda event, fields, level: made.notes.append((event, fields, level)),
        hold=hold,
        jitter=lambda: jitter,
    )
    made = Kept(timekeeper=timekeeper, clock=clock, device=device)
    return made


@asynccontextmanager
async def running(made: Kept) -> AsyncIterator[None]:
    await made.timekeeper.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.timekeeper.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("offset", [-365 * 86400.0, 365 * 86400.0, 20.0, -0.1], ids=["a year slow", "a year fast", "20 s", "0.1 s"])
async def test_a_wrong_clock_is_stepped_once_and_never_again(autojump_clock: MockClock, offset: float) -> None:
    made = kept(offset=offset)
    async with running(made):
        assert abs(made.wrong) < 0.012
        await trio.sleep(3600)
    assert made.clock.steps == [pytest.approx(-offset, abs=0.012)]
    assert made.events() == [("clock.stepped", "")]
    assert made.notes[0][1]["seconds_us"] == pytest.approx(-offset * 1e6, abs=12_000)
    assert made.held == ""


async def test_a_clock_that_is_right_is_not_touched(autojump_clock: MockClock) -> None:
    made = kept(offset=0.009)
    async with running(made):
        await trio.sleep(3600)
    assert (made.clock.steps, made.clock.slews) == ([], [])
    assert made.events() == [("clock.good", "")]


@pytest.mark.parametrize("drift", [200e-6, -200e-6], ids=["fast", "slow"])
async def test_a_clock_that_drifts_is_slewed_and_never_goes_back(autojump_clock: MockClock, drift: float) -> None:
    ways = random.Random(7)
    made = kept(offset=-3.0, drift=drift, delay=lambda: (ways.expovariate(50), ways.expovariate(50)))
    async with running(made):
        last = made.clock.read()
        for _ in range(8_000):
            await trio.sleep(0.5)
            now = made.clock.read()
            assert now > last
            last = now
        assert abs(made.wrong) < 0.1
    assert len(made.clock.steps) == 1
    assert len(made.clock.slews) > 20
    assert made.held == ""


async def test_five_documents_are_asked_for_at_every_interval_and_no_sooner(autojump_clock: MockClock) -> None:
    for jitter in (0.0, 1.0):
        made = kept(jitter=jitter)
        async with running(made):
            assert len(made.device.calls) == SAMPLES
            await trio.sleep(INTERVAL * (0.9 + 0.2 * jitter) - 1)
            assert len(made.device.calls) == SAMPLES
            await trio.sleep(2)
            assert len(made.device.calls) == 2 * SAMPLES


async def test_a_module_that_stalls_flips_readiness_after_the_limit_and_back(autojump_clock: MockClock) -> None:
    made = kept()
    async with running(made):
        await trio.sleep(10)
        made.device.stall = trio.Event()
        await trio.sleep(LIMITS.clock_age - 20)
        assert made.held == ""
        assert made.events() == [("clock.good", ""), ("clock.unread", "nsm_stalled")]
        await trio.sleep(20)
        assert made.held == "clock_age"
        await trio.sleep(2 * LIMITS.clock_age)
        assert made.events() == [("clock.good", ""), ("clock.unread", "nsm_stalled"), ("clock.stale", "clock_age")]
        assert made.timekeeper.metrics()["clock_age_seconds"] > 2 * LIMITS.clock_age
        made.device.stall.set()
        made.device.stall = None
        await trio.sleep(INTERVAL * 1.2)
        assert made.held == ""
        assert made.events()[3:] == [("clock.good", "")]
        assert made.timekeeper.metrics()["clock_age_seconds"] < INTERVAL * 1.2


async def test_a_failing_module_is_asked_again_with_back_off_and_journalled_once_for_each_outcome(
    autojump_clock: MockClock,
) -> None:
    made = kept()
    async with running(made):
        made.device.module.faults = Faults(refused={Attest: NsmErrorCode.INTERNAL_ERROR})
        await trio.sleep(INTERVAL + 125)
        failed = made.device.calls[SAMPLES:]
        gaps = [later - earlier for earlier, later in pairwise(failed)]
        assert [round(gap) for gap in gaps[:7]] == [1, 2, 4, 8, 16, 32, 60]
        made.device.module.faults = Faults(refused={Attest: NsmErrorCode.INVALID_OPERATION})
        await trio.sleep(INTERVAL + 5)
        made.device.module.faults = Faults()
        await trio.sleep(2 * INTERVAL)
    reasons = [reason for event, reason in made.events() if event == "clock.unread"]
    assert reasons == ["nsm_internal_error", "nsm_invalid_operation"]
    assert made.events()[-1] == ("clock.good", "")


async def test_a_clock_that_only_a_step_could_mend_after_the_start_is_not_stepped_but_not_ready(autojump_clock: MockClock) -> None:
    made = kept()
    async with running(made):
        made.device.module.faults = Faults(clock_skew=timedelta(seconds=1))
        await trio.sleep(INTERVAL * 1.2)
        assert made.held == "clock_offset"
        assert made.clock.steps == []
        before = made.wrong
        await trio.sleep(1000)
        assert made.wrong - before == pytest.approx(0.5, abs=0.05), "slewed at 500 ppm all the while"
        await trio.sleep(100)
        assert made.held == ""
        await trio.sleep(3000)
    assert abs(made.wrong - 1) < 0.02
    assert made.clock.steps == []
    assert made.events() == [("clock.good", ""), ("clock.stale", "clock_offset"), ("clock.good", "")]


async def test_answers_that_travel_too_long_are_no_measurement(autojump_clock: MockClock) -> None:
    made = kept()
    async with running(made):
        made.device.delay = lambda: (2.0, 0.0)
        await trio.sleep(INTERVAL * 2)
        assert made.events() == [("clock.good", ""), ("clock.unread", "clock_error")]
        assert made.clock.slews == []
        await trio.sleep(LIMITS.clock_age)
        assert made.held == "clock_age"


async def test_of_slow_answers_at_the_start_the_best_is_taken(autojump_clock: MockClock) -> None:
    delays = iter([(2.0, 0.0), (0.0, 2.0), (0.002, 0.002), (1.0, 0.0), (0.0, 1.0)])
    made = kept(offset=-1000.0, delay=lambda: next(delays))
    await made.timekeeper.set()
    assert abs(made.wrong) < 0.004


async def test_without_an_answer_at_the_start_there_is_no_clock(autojump_clock: MockClock) -> None:
    made = kept()
    made.device.module.faults = Faults(refused={Attest: NsmErrorCode.INTERNAL_ERROR})
    with pytest.raises(NsmError) as failed:
        await made.timekeeper.set()
    assert failed.value.reason == "nsm_internal_error"
    assert made.clock.steps == []


async def test_a_kernel_that_lets_nobody_set_the_clock_ends_the_boot_and_later_only_makes_it_stale(
    autojump_clock: MockClock,
) -> None:
    made = kept(offset=100.0)
    made.clock.refusal = PermissionError(1, "not permitted")
    with pytest.raises(ClockFailed) as failed:
        await made.timekeeper.set()
    assert failed.value.reason == "clock_not_set"
    made.clock.refusal = None
    async with running(made):
        made.clock.refusal = PermissionError(1, "not permitted")
        made.device.module.faults = Faults(clock_skew=timedelta(seconds=0.3))
        await trio.sleep(2 * INTERVAL)
        assert made.events()[1:] == [("clock.unread", "clock_not_set")]
        assert made.held == ""


async def test_metrics_tell_the_offset_its_bound_and_its_age(autojump_clock: MockClock) -> None:
    made = kept()
    async with running(made):
        made.device.module.faults = Faults(clock_skew=timedelta(seconds=0.2))
        await trio.sleep(INTERVAL + 10)
        metrics = made.timekeeper.metrics()
    assert metrics["clock_offset_microseconds"] == pytest.approx(200_000, abs=11_000)
    assert metrics["clock_error_microseconds"] == 11_000
    assert metrics["clock_age_seconds"] == 9
    assert all(math.isfinite(value) for value in metrics.values())
