"""The request to stop: who asked first sets the deadline, and asking again can only bring it forward."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import trio

GRACE = 25.0
"""Seconds for a stop that came without a deadline of its own, by a signal."""


class Stop:
    """Times are trio's."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.deadline = math.inf
        self._moved = trio.Event()
        self._scopes: dict[trio.CancelScope, float] = {}

    def ask(self, seconds: float = GRACE) -> None:
        """Everything must have ended in `seconds`."""
        deadline = trio.current_time() + seconds
        if deadline < self.deadline:
            self.deadline = deadline
            for scope, reserve in self._scopes.items():
                scope.deadline = min(scope.deadline, self._before(reserve))
            self._moved.set()
            self._moved = trio.Event()
        self.asked.set()

    @property
    def seconds_left(self) -> float:
        """From now until the deadline."""
        return max(0.0, self.deadline - trio.current_time())

    @contextmanager
    def scope(self, reserve: float = 0.0) -> Iterator[trio.CancelScope]:
        """What is cancelled `reserve` seconds before the deadline, or when four fifths of the time have passed if that is later."""
        with trio.CancelScope(deadline=self._before(reserve)) as scope:
            self._scopes[scope] = reserve
            try:
                yield scope
            finally:
                del self._scopes[scope]

    async def moved(self) -> None:
        """Waits until the deadline has come forward."""
        await self._moved.wait()

    def _before(self, reserve: float) -> float:
        return self.deadline - min(reserve, self.seconds_left / 5)


async def cancel_when_asked(stop: Stop, setting_up: trio.CancelScope) -> None:
    """A stop in the middle of the boot ends it where it is; afterwards the scope is gone and the processes are stopped in order."""
    await stop.asked.wait()
    setting_up.cancel()


async def stop_on_signal(stop: Stop) -> None:
    """SIGTERM and SIGINT ask for a stop, until cancelled."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.ask()
