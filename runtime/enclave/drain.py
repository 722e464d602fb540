"""The drain: nothing new is let in, what is in flight is finished, then the processes end in order, all of it before the deadline."""

from collections.abc import Sequence
from typing import Protocol

import trio

from runtime.enclave.stop import Stop

TCP_RESERVE = 2.0
"""Seconds before the deadline at which processes are asked to end in spite of open TCP connections, which nobody may ever end."""


LAST_WORDS_SECONDS = 1.0
"""For a worker that nobody needs any more to say what it has recorded last."""


class Draining(Protocol):
    """A worker that serves clients."""

    finished: trio.Event

    def drain(self, seconds: float) -> None:
        """Asks it to take nothing new and to finish."""


class Stopping(Protocol):
    """The supervisor."""

    async def stop(self, deadline: float) -> None:
        """Ends the processes in order until `deadline`; may be called again while it does."""


async def drain(
    stop: Stop, ingress: Sequence[Draining], public: Sequence[trio.abc.AsyncResource], supervisor: Stopping, *, reserve: float
) -> None:
    """Returns when the processes have ended. Requests may take until `reserve` seconds before the deadline of `stop`.

    `public` are the listeners that the workers share with this process: the kernel refuses clients when the last has closed them.
    """
    for worker in ingress:
        worker.drain(stop.seconds_left)
    for listener in public:
        await listener.aclose()
    with stop.scope(reserve):
        for worker in ingress:
            await worker.finished.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hurry, stop, supervisor)
        await supervisor.stop(stop.deadline)
        nursery.cancel_scope.cancel()


async def hear_out(workers: Sequence[Draining]) -> None:
    """Ends workers that nobody needs any more, when they have said what they still had to."""
    with trio.move_on_after(LAST_WORDS_SECONDS):
        for worker in workers:
            worker.drain(LAST_WORDS_SECONDS)
            await worker.finished.wait()


async def _hurry(stop: Stop, supervisor: Stopping) -> None:
    """Stops again, with the nearer deadline, whenever it has come forward."""
    async with trio.open_nursery() as nursery:
        while True:
            await stop.moved()
            nursery.start_soon(supervisor.stop, stop.deadline)
