"""How often and when a process runs again. Pure: times, in seconds of any one clock, and the jitter are arguments."""

from dataclasses import dataclass, field

PAUSE_LEAST = 0.1
PAUSE_MOST = 30.0
HEALTHY_SECONDS = 30.0
"""A run that was ready for so long at its end was a good one: the pauses begin anew after it."""


@dataclass(slots=True, kw_only=True)
class Restarts:
    """The restarts of one process: at most `most` within any `window` seconds, with a pause before each that doubles."""

    most: int
    window: float
    total: int = 0
    _within: list[float] = field(default_factory=list)
    _in_a_row: int = 0

    def pause(self, now: float, *, healthy: float, jitter: float) -> float | None:
        """The seconds to wait after a run that ended at `now`, or None when the budget is used up.

        `healthy` are the seconds that the run had been ready for at its end. `jitter`, from 0 to 1, takes up to a half off the pause, so
        that processes which fail together do not come back together.
        """
        self._within = [restart for restart in self._within if restart > now - self.window]
        if len(self._within) >= self.most:
            return None
        self._within.append(now)
        self.total += 1
        self._in_a_row = 1 if healthy >= HEALTHY_SECONDS else self._in_a_row + 1
        exponent = min(self._in_a_row - 1, 10)  # far beyond the longest pause, and no overflow however long it goes on
        return min(PAUSE_MOST, PAUSE_LEAST * 2.0**exponent) * (1 - jitter / 2)
