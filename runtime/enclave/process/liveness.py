"""Finds a worker that is stuck: stopped by a signal, or in a turn that does not end. It keeps its connections and serves nobody.

What is counted is questions without an answer, not seconds: a machine that was stopped as a whole, or is short of processors, stops
who asks as well. All workers are asked in the same turn, so that a machine with nothing to do is woken once.
"""

from collections.abc import Callable

import trio

PING_SECONDS = 30.0
MISSED_MOST = 2


class Liveness:
    """Of one process. Whoever takes its answers calls `answered`."""

    def __init__(self) -> None:
        self._missed = 0

    def answered(self) -> None:
        """The process takes turns."""
        self._missed = 0

    async def until_stuck(self, ask: Callable[[], None]) -> None:
        """Returns when `MISSED_MOST` questions in a row have found no answer: 60 to 90 seconds after the last turn."""
        while True:
            await trio.sleep_until((trio.current_time() // PING_SECONDS + 1) * PING_SECONDS)
            if self._missed == MISSED_MOST:
                return
            self._missed += 1
            ask()
