"""What a few readings of a distant clock say about the time, and whether that is good enough. Pure: numbers in, numbers out.

Runs inside the enclave. The clock that is read is trusted; how long its answers travel is not, and neither is how that time divides
into the way there and the way back. So the answer with the least round trip counts, taken for the middle of its call: it cannot be
wrong by more than half of that round trip (RFC 5905 section 10 picks its samples by the same rule).
"""

from collections.abc import Sequence
from dataclasses import dataclass

RESOLUTION = 0.001
"""Seconds: what is told in whole milliseconds may be so much later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One call: `sent` and `received` in seconds of a monotonic counter, `unix` what the answer says, in seconds since 1970 UTC."""

    sent: float
    received: float
    unix: float

    @property
    def delay(self) -> float:
        """Seconds for the way there and back."""
        return self.received - self.sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """It was `unix` at `monotonic` of the counter, give or take `error` seconds."""

    unix: float
    monotonic: float
    error: float


def estimate(samples: Sequence[Sample]) -> Estimate:
    """What the sample with the least delay says; of several, the first."""
    best = min(samples, key=lambda sample: sample.delay)
    return Estimate(unix=best.unix, monotonic=(best.sent + best.received) / 2, error=best.delay / 2 + RESOLUTION)


def correction(offset: float, error: float) -> float:
    """By how many seconds to move a clock that is `offset` behind: not at all when the offset may be an error of the measurement."""
    return offset if abs(offset) > error else 0.0


def trouble(*, age: float, offset: float, age_limit: float, offset_limit: float) -> str:
    """Why a clock is not good enough: "clock_age" (measured too long ago), "clock_offset" (only a step would set it right), or ""."""
    if age >= age_limit:
        return "clock_age"
    return "clock_offset" if abs(offset) > offset_limit else ""
