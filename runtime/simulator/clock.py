"""The clock of a simulated machine. The host's clock belongs to everybody on it, so it is read and never moved."""

from collections.abc import Callable

import trio

from runtime.net.clock import unix_now

SLEW_RATE = 500e-6
"""Seconds a second, as Linux slews."""


class SimulatedClock:
    """As `runtime.enclave.identity.system_clock.SystemClock`: the host's clock, and an offset of its own in memory that starts with
    `offset` seconds. `counter` is monotonic, in seconds."""

    is_ours = False

    def __init__(
        self, offset: float = 0.0, *, host: Callable[[], float] = unix_now, counter: Callable[[], float] = trio.current_time
    ) -> None:
        self._host = host
        self._counter = counter
        self._offset = offset
        self._slewing = 0.0
        self._since = 0.0

    def read(self) -> float:
        """See `SystemClock`."""
        return self._host() + self._offset + self._slewed()

    def step(self, seconds: float) -> None:
        """See `SystemClock`. What was left to slew is forgotten, as Linux does."""
        self._offset += self._slewed() + seconds
        self._slewing = 0.0

    def slew(self, seconds: float) -> None:
        """See `SystemClock`."""
        self._offset += self._slewed()
        self._slewing, self._since = seconds, self._counter()

    def _slewed(self) -> float:
        """What the last `slew` has gained until now, or lost."""
        if self._slewing == 0:
            return 0.0
        most = (self._counter() - self._since) * SLEW_RATE
        return max(-most, min(most, self._slewing))
