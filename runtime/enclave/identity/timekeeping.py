"""Keeps the machine's clock with the NSM's: one step before any customer process starts, afterwards nothing but slewing.

Runs in PID 1. The clock that a parent gave the machine is worth nothing; the timestamps in fresh documents are the hypervisor's. A clock
that cannot be kept (no good answer for too long, or so far off that only a step would help) makes the enclave not ready, and no more:
evidence is served all the same, and whoever asks for it judges its time.
"""

import random
from collections.abc import Callable, Mapping

import trio

from runtime.enclave.config import Limits
from runtime.enclave.identity.clock import TrustedClock, read_clock
from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.identity.system_clock import SystemClock
from runtime.enclave.identity.time_filter import correction, trouble
from runtime.protocol.link_values import JournalFields, Level

INTERVAL = 60.0
SAMPLES = 5

Note = Callable[[str, JournalFields, Level], None]


class ClockFailed(Exception):
    """The machine's clock cannot be set; `reason` is a stable code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason


class Timekeeper:
    """One machine's clock. `await set()` once, before anything reads the clock; then `run` in a nursery.

    `hold` is told why the clock is not good enough, "" when it is. `counter` is monotonic and in trio's seconds; `jitter` gives numbers
    from 0 to 1, so that the machines of one host do not ask in the same moment.
    """

    def __init__(
        self,
        nsm: Nsm,
        clock: SystemClock,
        limits: Limits,
        *,
        note: Note,
        hold: Callable[[str], None],
        counter: Callable[[], float] = trio.current_time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._nsm = nsm
        self._clock = clock
        self._limits = limits
        self._note = note
        self._hold = hold
        self._counter = counter
        self._jitter = jitter
        self._good: TrustedClock | None = None
        self._offset = 0.0
        self._outcome = ("clock.good", "")

    async def set(self) -> None:
        """Steps the clock if it is wrong. Raises `NsmError` or `ClockFailed` ("clock_not_set")."""
        if not self._clock.is_ours:
            self._note("clock.left_alone", {}, "info")
        self._good = good = await read_clock(self._nsm, self._counter, samples=SAMPLES)
        seconds = correction(self._offset_from(good), good.error)
        if seconds != 0:
            try:
                self._clock.step(seconds)
            except OSError as error:
                raise ClockFailed("clock_not_set", f"the clock is {seconds:.3f} s behind: {error}") from error
            self._note("clock.stepped", {"seconds_us": round(seconds * 1e6), "error_us": round(good.error * 1e6)}, "info")
        self._offset = self._offset_from(good)
        if seconds == 0:
            self._note("clock.good", self._numbers(good), "info")

    async def run(self) -> None:
        """Measures and slews every `INTERVAL`; after a failure sooner, backing off from a second to that."""
        failures = 0
        while True:
            pause = min(INTERVAL, 2.0 ** min(failures - 1, 10)) if failures else INTERVAL
            await trio.sleep(min(pause * (0.9 + 0.2 * self._jitter()), self._seconds_left or pause))
            reason = await self._keep()
            failures = failures + 1 if reason else 0
            self._judge(reason)

    def metrics(self) -> Mapping[str, int]:
        """For the parent: how far off the clock was when it was last measured, how sure that is, and how long ago."""
        assert self._good is not None, "set() comes first"
        return {
            "clock_offset_microseconds": round(self._offset * 1e6),
            "clock_error_microseconds": round(self._good.error * 1e6),
            "clock_age_seconds": int(self._age),
        }

    @property
    def _age(self) -> float:
        assert self._good is not None
        return self._counter() - self._good.monotonic

    @property
    def _seconds_left(self) -> float:
        """Until the last good measurement is too old; 0 when it is already."""
        return max(0.0, float(self._limits.clock_age) - self._age)

    def _offset_from(self, good: TrustedClock) -> float:
        """By how many seconds the machine's clock is behind."""
        return good.unix_now() - self._clock.read()

    async def _keep(self) -> str:
        """One measurement and what follows from it; the reason why there is none, or ""."""
        try:
            good = await read_clock(self._nsm, self._counter, samples=SAMPLES)
            if good.error > self._limits.clock_offset:
                return "clock_error"
            self._good, self._offset = good, self._offset_from(good)
            if (seconds := correction(self._offset, good.error)) != 0:
                self._clock.slew(seconds)
        except NsmError as error:
            return error.reason
        except OSError:
            return "clock_not_set"
        return ""

    def _judge(self, failure: str) -> None:
        """Tells what has become of the clock, where it is not what was told before."""
        assert self._good is not None
        limits = self._limits
        bad = trouble(age=self._age, offset=self._offset, age_limit=limits.clock_age, offset_limit=limits.clock_offset)
        self._hold(bad)
        outcome = ("clock.stale", bad) if bad else ("clock.unread", failure) if failure else ("clock.good", "")
        if outcome == self._outcome:
            return
        self._outcome = outcome
        if bad:
            self._note("clock.stale", {"reason": bad, **self._numbers(self._good)}, "error")
        elif failure:
            self._note("clock.unread", {"reason": failure}, "warning")
        else:
            self._note("clock.good", self._numbers(self._good), "info")

    def _numbers(self, good: TrustedClock) -> dict[str, int | str | bytes]:
        return {
            "offset_us": round(self._offset * 1e6),
            "error_us": round(good.error * 1e6),
            "age_ms": round(self._age * 1000),
        }
