"""A listener that ends without losing whom the kernel has accepted already.

The socket is shared with PID 1 and other workers, so closing it here would leave those in its queue waiting for nobody: they are
accepted first. When the last of its owners has closed it, the kernel refuses whoever comes.
"""

import trio

QUIET = 0.03
"""Seconds without a connection after which the queue counts as empty."""
AT_MOST = 0.5
"""Seconds that emptying the queue may take, whatever still comes."""


class LastAccepts(trio.abc.Listener[trio.SocketStream]):
    """Accepts as `listener` does, for one caller, until `end`."""

    def __init__(self, listener: trio.abc.Listener[trio.SocketStream]) -> None:
        self._listener = listener
        self._is_ending = False
        self._waiting: trio.CancelScope | None = None
        self._closed = trio.Event()

    async def accept(self) -> trio.SocketStream:
        """The next connection. Raises `trio.ClosedResourceError` when the queue was emptied after `end`, and what the listener raises."""
        if not self._is_ending:
            with trio.CancelScope() as self._waiting:
                return await self._listener.accept()
        with trio.move_on_after(QUIET):
            return await self._listener.accept()
        await self.aclose()
        raise trio.ClosedResourceError("nobody is accepted any more")

    async def end(self) -> None:
        """Lets the caller of `accept` take those who wait in the queue, and closes the listener."""
        self._is_ending = True
        if self._waiting is not None:
            self._waiting.cancel()
        with trio.move_on_after(AT_MOST):
            await self._closed.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the listener at once."""
        self._closed.set()
        await self._listener.aclose()
