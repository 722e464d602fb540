"""How often strangers can make a worker write into the journal: PID 1 reads it, and what it does not read in time ends the worker.

Each event has a rate of its own, so that none hides another. What is over is counted in the next of its name.
"""

from collections import Counter
from collections.abc import Callable

import trio

from runtime.net.buckets import TokenBuckets

RATE = 100.0
BURST = 500
"""Events of one name, a second and at once."""


class EventLimit:
    """A log of the traffic's events, in front of `note`, which gets a name and fields."""

    def __init__(self, note: Callable[[str, dict[str, object]], None]) -> None:
        self._note = note
        self._buckets = TokenBuckets(rate=RATE, burst=BURST)
        self._dropped: Counter[str] = Counter()

    def __call__(self, event: str, /, **fields: object) -> None:
        """One event. Never waits."""
        if self._buckets.take(event, now=trio.current_time()):
            self._dropped[event] += 1
            return
        if dropped := self._dropped.pop(event, 0):
            fields["dropped"] = dropped
        self._note(event, fields)
