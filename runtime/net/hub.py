"""Many connections in one trio task: a loop over one epoll, for paths where a trio task for each connection would be the main cost.

trio arms a descriptor anew and goes through its scheduler at every wait, which costs more than all else that a proxied request needs.
Here each connection is a coroutine of the hub (`Work`), its descriptors stay armed between its waits, and the epoll itself is one
descriptor that one trio task waits for: trio pays once for all that is ready together. What needs trio is called through `Work.call`.

Rules: a coroutine of the hub awaits only `Work.wait`, `Work.pause`, `Work.sleep` and `Work.call`. What is ready may also be handled by a
callback, which never waits. An exception that leaves either is a bug and ends the hub.
"""

import heapq
import math
import select
import socket
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

import trio

IN = select.EPOLLIN
OUT = select.EPOLLOUT
_ALWAYS = select.EPOLLERR | select.EPOLLHUP
_BATCH = 512
"""Events of one poll: the others are still there at the next."""
_TURNS = 16
"""Polls before trio has its turn again."""
_OVERDUE_MAX = 1024
"""Deadlines of works that have ended which may be kept, besides as many as there are works."""
_LINGER = 0.001
"""Seconds that a poll waits for what comes right after what was done: trio's turn would cost more than many an event."""

T = TypeVar("T")


class Expired(Exception):
    """Raised where a work waits when its deadline has passed. The deadline is then infinite again."""


class Source:
    """A descriptor that a work waits for. It is armed when it is first waited for, and stays so while its events are waited for."""

    __slots__ = ("_hub", "armed", "callback", "fd", "wanted", "work")

    def __init__(self, hub: "Hub", fd: int) -> None:
        self._hub = hub
        self.fd = fd
        self.armed = 0
        self.wanted = 0
        self.work: Work | None = None
        self.callback: Callable[[], None] | None = None

    def watch(self, callback: Callable[[], None]) -> None:
        """Calls `callback` whenever there is something to read, instead of waking a work, until `ignore`, a wait or `close`.

        It is also called for a descriptor that had this number before, so there may be nothing.
        """
        self.callback = callback
        if self.armed != IN:
            self.arm(IN)

    def ignore(self) -> None:
        """Ends `watch`. What comes is noticed when it is waited for."""
        self.callback = None
        self.wanted = 0

    def arm(self, events: int) -> None:
        """Makes the kernel watch for exactly `events`; 0 also hides errors and hang-ups."""
        if events == self.armed:
            return
        epoll = self._hub.epoll
        if not events:
            epoll.unregister(self.fd)
            del self._hub.sources[self.fd]
        elif not self.armed:
            epoll.register(self.fd, events)
            self._hub.sources[self.fd] = self
        else:
            epoll.modify(self.fd, events)
        self.armed = events

    def drop(self) -> None:
        """As `close`, where the descriptor is closed right after and has no duplicate: then the kernel stops watching by itself."""
        if self.armed:
            del self._hub.sources[self.fd]
            self.armed = 0
        self.wanted = 0
        self.work = self.callback = None

    def close(self) -> None:
        """Forgets it. Before its descriptor is closed, always."""
        if not self._hub.epoll.closed:
            self.arm(0)
        self.wanted = 0
        self.work = self.callback = None


class Work:
    """One coroutine of the hub and its deadline.

    `deadline` is a moment of trio's clock and may be set at any time: it costs nothing, since the hub looks at it only when an earlier
    one comes up. `grace` is how many seconds its present wait may still last once the hub is hastened; infinite while it is busy. `due` is
    when the hub looks at it: whoever sets a deadline before that while it waits calls `remind`.
    """

    __slots__ = ("_coroutine", "deadline", "due", "grace", "hub", "waiting")

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.deadline = math.inf
        self.grace = math.inf
        self.waiting: tuple[Source, ...] | None = None
        self.due = math.inf
        self._coroutine: Coroutine[Any, Any, None] | None = None

    def within(self, seconds: float, *, grace: float = math.inf) -> None:
        """Sets the deadline, counted from now; `grace` holds until it is set again."""
        self.grace = grace
        self.deadline = self.hub.now + (min(seconds, grace) if self.hub.is_hastened else seconds)

    @types.coroutine
    def wait(self, source: Source, events: int, other: Source | None = None, other_events: int = 0) -> Generator[None, int, int]:
        """Waits for events of one source or of two: gives those of `source` alone, 0 when only the other had some.

        Raises `Expired` at the deadline. Errors and hang-ups count as events: what is tried next tells which it was.
        """
        source.work = self
        source.callback = None
        source.wanted = events
        if events & ~source.armed:
            source.arm(source.armed | events)
        if other is None:
            self.waiting = (source,)
        else:
            other.work = self
            other.callback = None
            other.wanted = other_events
            if other_events & ~other.armed:
                other.arm(other.armed | other_events)
            self.waiting = (source, other)
        if self.deadline < self.due:
            self.remind()
        return (yield)

    @types.coroutine
    def pause(self) -> Generator[None, int, int]:
        """Waits until a callback calls `Hub.step` for it: gives the events. Raises `Expired` at the deadline, and what `step` is given."""
        self.waiting = ()
        if self.deadline < self.due:
            self.remind()
        return (yield)

    @types.coroutine
    def sleep(self, seconds: float) -> Generator[None, int, None]:
        """Waits for nothing but time. The deadline is infinite afterwards."""
        self.within(seconds)
        self.waiting = ()
        if self.deadline < self.due:
            self.remind()
        with suppress(Expired):
            yield

    @types.coroutine
    def call(self, function: Callable[..., Awaitable[T]], *arguments: object) -> Generator[None, Any, T]:
        """The result of `function`, run in a trio task, where an exception is a bug. `Expired` cancels it; so does the end of the work.

        A socket that it gives all the same is closed.
        """
        self.waiting = ()
        if self.deadline < self.due:
            self.remind()
        scope = trio.CancelScope()
        result: list[T] = []

        async def run() -> None:
            with scope:
                found = await function(*arguments)
                if scope.cancel_called:  # in the same turn, and the work is elsewhere by now or has ended
                    if isinstance(found, socket.socket):
                        found.close()
                    return
                result.append(found)
                self.hub.now = trio.current_time()
                self.hub.step(self, 0)

        self.hub.run_in_trio(run)
        try:
            yield
        finally:
            if not result:
                scope.cancel()
        return result.pop()

    def remind(self) -> None:
        """Makes the hub look at it when its present deadline comes."""
        self.due = self.deadline
        self.hub.remind(self)


class Hub:
    """The epoll, the works and their deadlines. `now` is the time of the batch that is being worked on, on trio's clock."""

    nursery: trio.Nursery

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.sources: dict[int, Source] = {}
        self.works: set[Work] = set()
        self.now = trio.current_time()
        self.is_hastened = False
        self._is_trio_asked = False
        self._due: list[tuple[float, int, Work]] = []
        self._numbers = count()
        self._timer = trio.CancelScope()
        self._empty = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs works until it is cancelled, and then ends them all: each is closed where it waits."""
        try:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self._keep_time)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self.epoll.fileno())
                    self._take_turns()
        finally:
            for work in list(self.works):
                self._end(work)
            self.epoll.close()

    def start(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> Work:
        """Starts `function(work, *arguments)`, and runs it to its first wait."""
        work = Work(self)
        work._coroutine = function(work, *arguments)
        self.works.add(work)
        self.now = trio.current_time()
        self._run(work, None)
        return work

    async def wait_empty(self) -> None:
        """Returns when there is no work."""
        while self.works:
            self._empty = trio.Event()
            await self._empty.wait()

    def hasten(self) -> None:
        """From now on nothing new begins: whoever waits inside a grace has no more than that."""
        self.is_hastened = True
        self.now = trio.current_time()
        for work in self.works:
            if self.now + work.grace < work.deadline:
                work.deadline = self.now + work.grace
                if work.waiting is not None and work.deadline < work.due:
                    work.remind()

    def remind(self, work: Work) -> None:
        """Makes the timer look at `work` when its present deadline comes."""
        if len(self._due) > 2 * len(self.works) + _OVERDUE_MAX:
            self._forget_ended()
        heapq.heappush(self._due, (work.deadline, next(self._numbers), work))
        if self._due[0][2] is work:
            self._timer.deadline = work.deadline

    def _forget_ended(self) -> None:
        """What ended long before its deadline would stay until that comes, an hour perhaps; and of a work that waits one entry will do."""
        self._due = [entry for entry in self._due if entry[2] in self.works and entry[0] == entry[2].due]
        heapq.heapify(self._due)

    def run_in_trio(self, function: Callable[[], Awaitable[None]]) -> None:
        """Starts a trio task, soon."""
        self._is_trio_asked = True
        self.nursery.start_soon(function)

    def step(self, work: Work, events: int, error: Exception | None = None) -> None:
        """Runs a work that waits until it waits again or ends."""
        for source in work.waiting or ():
            source.wanted = 0
        work.waiting = None
        self._run(work, events, error)

    def _run(self, work: Work, events: int | None, error: Exception | None = None) -> None:
        coroutine = work._coroutine
        assert coroutine is not None
        try:
            if error is None:
                coroutine.send(events)
            else:
                coroutine.throw(error)
        except StopIteration:
            self._forget(work)

    def _take_turns(self) -> None:
        """Works on what is ready until there is nothing more, or something for trio to do."""
        self._is_trio_asked = False
        wait = 0.0
        for _ in range(_TURNS):
            ready = self.epoll.poll(wait, _BATCH)
            self.now = trio.current_time()
            self._dispatch(ready)
            if not ready or self._is_trio_asked:
                return
            wait = _LINGER

    def _dispatch(self, ready: list[tuple[int, int]]) -> None:
        sources = self.sources
        for fd, events in ready:
            source = sources.get(fd)
            if source is None:
                continue
            if source.callback is not None:
                source.callback()
                continue
            work = source.work
            if source.wanted and events & (source.wanted | _ALWAYS) and work is not None and work.waiting:
                self.step(work, events if work.waiting[0] is source else 0)
            else:
                source.arm(source.wanted)

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._due[0][0] if self._due else math.inf) as self._timer:
                await trio.sleep_forever()
            self.now = trio.current_time()
            while self._due and self._due[0][0] <= self.now:
                _, _, work = heapq.heappop(self._due)
                self._look_at(work)

    def _look_at(self, work: Work) -> None:
        """The entry of `work` came up, which may have got more time since, or have ended."""
        work.due = math.inf
        if work not in self.works or work.waiting is None:
            return  # one that is not waiting reminds again when it waits
        if work.deadline > self.now:
            work.remind()
            return
        work.deadline = math.inf
        self.step(work, 0, Expired())

    def _end(self, work: Work) -> None:
        assert work._coroutine is not None
        work._coroutine.close()
        self._forget(work)

    def _forget(self, work: Work) -> None:
        self.works.discard(work)
        if not self.works:
            self._empty.set()
