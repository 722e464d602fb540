"""Connections to the customer process, kept between requests and shared by the clients of a worker.

A connection is kept only if it is certainly between two messages, and is dropped as soon as anything comes on it, bytes or an end:
bytes that nobody asked for would otherwise become the answer to somebody's next request.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import trio

from runtime.net.endpoint import Endpoint
from runtime.net.hub import Expired, Hub, Work
from runtime.net.hub_socket import Plain, connect, send_all


class UpstreamFailed(Exception):
    """The customer process did not answer as HTTP asks. `code` is stable; `is_timeout` tells 504 from 502."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} [{code}]")
        self.code = code

    @property
    def is_timeout(self) -> bool:
        """Whether a deadline passed."""
        return self.code.endswith("_timeout")


async def greet(work: Work, plain: Plain, greeting: bytes) -> None:
    """Sends what a connection begins with, or closes it. Raises OSError, `Expired`."""
    try:
        await send_all(work, plain, greeting)
    except BaseException:
        plain.close()
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAnswer:
    """The head of a usual answer: as it came, as it goes back but for its end, and the bytes of all of the answer.

    `whole` is -1 for an answer that is not usual; its head is known all the same.
    """

    raw: bytes
    lines: bytes
    status: int
    whole: int


NOTHING_KNOWN = KnownAnswer(raw=b"\0", lines=b"", status=0, whole=-1)
"""Of an answer that does not begin as one: it is not usual either."""


class Upstream:
    """One connection. `was_used` says that it served a request before, `known` is the last usual head that came on it."""

    __slots__ = ("idle_since", "known", "plain", "socket", "source", "spoken", "was_used")

    def __init__(self, plain: Plain, spoken: "Callable[[Upstream], None]") -> None:
        self.plain = plain
        self.socket = plain.socket
        self.source = plain.source
        self.spoken = partial(spoken, self)
        self.was_used = False
        self.idle_since = 0.0
        self.known = NOTHING_KNOWN

    def close(self) -> None:
        """Ends the connection; again does nothing."""
        self.source.close()
        self.socket.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Idle connections at once; seconds that one may be idle, and that a new one may take."""

    size: int = 128
    idle_timeout: float = 30.0
    connect_timeout: float = 5.0


class UpstreamPool:
    """Idle connections, of which the one that was used last serves next. A context manager that closes them.

    Each begins with `greeting`, which the customer process expects before the first request.
    """

    def __init__(self, hub: Hub, endpoint: Endpoint, limits: PoolLimits, *, greeting: bytes = b"") -> None:
        self._hub = hub
        self._endpoint = endpoint
        self._limits = limits
        self._greeting = greeting
        self._idle: list[Upstream] = []
        self._has_idle = trio.Event()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_closed = True  # for those that come back from now on
        while self._idle:
            self._idle.pop().close()

    def take(self) -> Upstream | None:
        """An idle connection, None when there is none."""
        return self._idle.pop() if self._idle else None

    def give(self, upstream: Upstream) -> None:
        """Keeps a connection on which nothing is under way, or closes it."""
        if len(self._idle) >= self._limits.size or self._is_closed:
            upstream.close()
            return
        upstream.was_used = True
        upstream.idle_since = self._hub.now
        upstream.source.watch(upstream.spoken)
        if not self._idle:
            self._has_idle.set()
        self._idle.append(upstream)

    async def open(self, work: Work) -> Upstream:
        """A new connection. Raises `UpstreamFailed`."""
        work.within(self._limits.connect_timeout)
        try:
            plain = await connect(work, self._endpoint)
            if self._greeting:
                await greet(work, plain, self._greeting)
            return Upstream(plain, self._has_spoken)
        except Expired:
            raise UpstreamFailed("connect_timeout", f"no connection within {self._limits.connect_timeout:g} seconds") from None
        except OSError as error:
            raise UpstreamFailed("connect_failed", str(error)) from None

    def _has_spoken(self, upstream: Upstream) -> None:
        try:
            upstream.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return  # an event of a descriptor that had this number before
        except OSError:
            pass
        self._idle.remove(upstream)
        upstream.close()

    async def close_unused(self) -> None:
        """Closes those that nobody has needed for long, for ever: a task of trio's, asleep while there are none."""
        while True:
            await self._has_idle.wait()
            while self._idle:
                # Those that have waited longest are at the front.
                await trio.sleep_until(max(self._idle[0].idle_since + self._limits.idle_timeout, trio.current_time() + 0.01))
                while self._idle and self._idle[0].idle_since + self._limits.idle_timeout <= trio.current_time():
                    self._idle.pop(0).close()
            self._has_idle = trio.Event()
