"""Signals that PID 1 gets and that are not about itself: they go to the main process's group."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

import trio

FORWARDED = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""SIGTERM and SIGINT are not among them: they ask for a drain (runtime/enclave/stop.py)."""


def _to_nobody(_number: int) -> None:
    """Where there is no process yet, a signal for it means nothing; it must not end PID 1 either."""


@dataclass(slots=True)
class Forwarding:
    """`to` is set when there is somebody to hear them."""

    to: Callable[[int], None] = _to_nobody

    async def run(self) -> None:
        """Forwards for ever."""
        with trio.open_signal_receiver(*FORWARDED) as signals:
            async for number in signals:
                self.to(number)
