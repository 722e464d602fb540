"""Time that passes only while nothing happens: for tests with worker threads, which a mock clock's own autojump takes for idleness."""

import math

import trio
from trio.testing import MockClock

_IDLE_ROUNDS = 5000


async def skip_waiting(clock: MockClock) -> None:
    """Moves the clock to the next deadline whenever nothing else can happen. Like its autojump, but worker threads count as busy."""
    threads = trio.to_thread.current_default_thread_limiter()
    idle = 0
    while idle < _IDLE_ROUNDS:
        await trio.testing.wait_all_tasks_blocked(0.002)
        seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if not threads.borrowed_tokens and 0 < seconds < math.inf:
            clock.jump(seconds)
            idle = 0
        idle += 1
    raise AssertionError("nothing happens any more, and nothing is waited for")
