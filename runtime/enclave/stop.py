"""The request to stop: who asked first sets the deadline, and asking again can only bring it forward."""

import math

import trio

GRACE = 25.0
"""Seconds for a stop that came without a deadline of its own, by a signal."""

_RESERVED = 2.0


class Stop:
    """Times are trio's. `requests_deadline` is a little before `deadline`, so that processes get time to end as well."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.deadline = math.inf
        self.requests_deadline = math.inf

    def ask(self, seconds: float = GRACE) -> None:
        """Everything must have ended in `seconds`."""
        now = trio.current_time()
        self.deadline = min(self.deadline, now + seconds)
        self.requests_deadline = max(now, self.deadline - min(_RESERVED, (self.deadline - now) / 5))
        self.asked.set()

    @property
    def seconds_left(self) -> float:
        """From now until the deadline."""
        return max(0.0, self.deadline - trio.current_time())
