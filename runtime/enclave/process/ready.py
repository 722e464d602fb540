"""Whether a customer process is ready, asked again and again. How to ask is the caller's: PID 1 runs commands, a worker speaks to ports."""

from collections.abc import Awaitable, Callable

import trio

from runtime.enclave.config import Ready


async def follow_readiness(ready: Ready, ask: Callable[[], Awaitable[bool]], on_change: Callable[[bool], None]) -> None:
    """Asks every `interval` for as long as it is not cancelled. Ready with the first yes; not ready any more after `failures` times no."""
    was_ready, failures = False, 0
    while True:
        begun = trio.current_time()
        answer = False
        with trio.move_on_after(ready.timeout):
            answer = await ask()
        failures = 0 if answer else failures + 1
        if answer != was_ready and (answer or failures >= ready.failures):
            was_ready = answer
            on_change(answer)
        await trio.sleep_until(begun + ready.interval)
