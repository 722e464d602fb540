"""The one accept loop, and the one list of errors that end a connection and nothing else.

A handler runs in a task of its own, so a slow or silent peer never holds the loop. At the limit the loop stops accepting and the
kernel's backlog holds the rest. Closing the listener from outside is how a server drains: the loop ends, what is in flight goes on.
"""

import errno
from collections.abc import Awaitable, Callable, Iterator

import h11
import trio

from runtime.net.failures import STREAM_ERRORS

CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    *STREAM_ERRORS,
    h11.RemoteProtocolError,  # a peer's fault in HTTP
)
"""Any other error is a bug or a fault of the machine and ends the worker (runtime/README.md, "Packages")."""

_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BACKOFF_LEAST = 0.05
_BACKOFF_MOST = 1.0


async def serve(
    listener: trio.abc.Listener[trio.SocketStream],
    handler: Callable[[trio.SocketStream], Awaitable[None]],
    *,
    limit: int,
    on_error: Callable[[BaseException], None] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs `handler` on every connection, at most `limit` at once, and closes the stream after it; owns and closes `listener`.

    An error of `CONNECTION_ERRORS` ends its connection and is given to `on_error`, alone or out of an exception group; so is the
    error for which accepting pauses (no descriptors, no memory). Returns when the listener was closed and every handler ended.
    """
    report = on_error or _ignore
    slots = trio.Semaphore(limit)
    async with listener, trio.open_nursery() as nursery:
        task_status.started()
        while True:
            await slots.acquire()
            try:
                stream = await _accept(listener, report)
            except trio.ClosedResourceError:
                return
            nursery.start_soon(_handle, stream, handler, slots, report)


async def _accept(listener: trio.abc.Listener[trio.SocketStream], report: Callable[[BaseException], None]) -> trio.SocketStream:
    """The next connection. A want of descriptors or memory passes: wait for it instead of spinning or dying."""
    pause = _BACKOFF_LEAST
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                continue
            if error.errno not in _CAPACITY:
                raise
            report(error)
        await trio.sleep(pause)
        pause = min(2 * pause, _BACKOFF_MOST)


async def _handle(
    stream: trio.SocketStream,
    handler: Callable[[trio.SocketStream], Awaitable[None]],
    slots: trio.Semaphore,
    report: Callable[[BaseException], None],
) -> None:
    try:
        async with stream:
            await handler(stream)
    except* CONNECTION_ERRORS as group:
        for error in _leaves(group):
            report(error)
    finally:
        slots.release()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _ignore(_: BaseException) -> None:
    pass
