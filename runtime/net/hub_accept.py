"""The accept loop on a hub: the counterpart of net/serve.py, with the same list of errors that end a connection and nothing else."""

import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import trio

from runtime.net.failures import STREAM_ERRORS
from runtime.net.hub import Expired, Hub, Source, Work
from runtime.net.hub_socket import TCP_FAMILIES, Plain

_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PASSING = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH})
_BACKOFF_LEAST = 0.05
_BACKOFF_MOST = 1.0
_BATCH = 32
"""Connections that are accepted before those there are have their turn."""

Handler: TypeAlias = Callable[[Work, Plain], Coroutine[Any, Any, None]]


class Accepting:
    """Runs `handler(work, plain)` on every connection, at most `limit` at once, and closes it after that; owns `listening`.

    TCP connections get no delay. An error of `STREAM_ERRORS`, or `Expired` (as `trio.TooSlowError`), ends its connection and is
    given to `on_error`; so is the error for which accepting pauses (no descriptors, no memory). `close` ends accepting; what is in
    flight goes on.
    """

    def __init__(
        self,
        hub: Hub,
        listening: socket.socket,
        handler: Handler,
        *,
        limit: int,
        on_error: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._hub = hub
        self._listening = listening
        self._handler = handler
        self._limit = self._left = limit
        self._report = on_error
        self._source = Source(hub, listening.fileno())
        self._pause = _BACKOFF_LEAST
        self._is_closed = False
        self._ended = trio.Event()
        listening.setblocking(False)
        if listening.family in TCP_FAMILIES:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
        self._source.watch(self._accept)

    def close(self) -> None:
        """Closes the listening socket."""
        if not self._is_closed:
            self._is_closed = True
            if not self._hub.epoll.closed:
                self._source.close()
            self._listening.close()

    async def wait_ended(self) -> None:
        """Returns when no connection is left, for whoever has closed it."""
        while self._left < self._limit:
            self._ended = trio.Event()
            await self._ended.wait()

    def _accept(self) -> None:
        for _ in range(_BATCH):
            if not self._left:
                self._source.close()  # the kernel's backlog holds the rest
                return
            try:
                accepted, peer = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _PASSING:
                    continue
                if error.errno not in _CAPACITY:
                    raise
                self._report(error)
                self._source.close()
                self._hub.start(self._resume_later)
                return
            self._pause = _BACKOFF_LEAST
            self._left -= 1
            self._hub.start(self._handle, accepted, peer)
            if self._is_closed:
                return

    async def _resume_later(self, work: Work) -> None:
        """A want of descriptors or memory passes: it is waited for instead of spinning or dying."""
        pause, self._pause = self._pause, min(2 * self._pause, _BACKOFF_MOST)
        await work.sleep(pause)
        self._resume()

    def _resume(self) -> None:
        if not self._is_closed and self._left:
            self._source.watch(self._accept)

    async def _handle(self, work: Work, accepted: socket.socket, peer: Any) -> None:
        accepted.setblocking(False)
        plain = Plain(self._hub, accepted, peer)
        try:
            await self._handler(work, plain)
        except Expired:
            self._report(trio.TooSlowError())
        except STREAM_ERRORS as error:
            self._report(error)
        finally:
            plain.close()
            self._left += 1
            if self._left == 1:
                self._resume()
            if self._left == self._limit:
                self._ended.set()
