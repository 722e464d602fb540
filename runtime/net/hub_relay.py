"""Copies bytes between two sockets on a hub until both directions ended, or an error or a deadline ended them.

An end of one direction is handed on as an end, and gives the other direction `linger` seconds (half-close as in ghostunnel). A
socket that breaks while it is read was cut off, not finished: the other one is aborted, so that its reader cannot take a truncated
message for a whole one. A socket that takes no more bytes may still have an answer under way: what has arrived from it is delivered
first. Whoever leaves while the other does not take the rest is not waited for long: where nothing else is wanted of a socket its
hanging up is, and from then on `linger` seconds without a byte taken, by the kernel's own count, are enough. Whatever happens, both
sockets are closed.

Small amounts go through one buffer that all relays of a process share. Between plain sockets large ones move inside the kernel, through
a pipe that is borrowed for as long as there are bytes in it: an idle relay holds neither memory nor pipe.
"""

import errno
import math
import os
import select
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, TypeAlias

from runtime.net.hub import IN, OUT, Expired, Source, Work
from runtime.net.hub_socket import Plain, unsent_bytes
from runtime.net.openssl import ENDED, WANT_READ, WANT_WRITE, Buffer, TlsBroken, TlsSocket
from runtime.net.pipes import SIZE, Pipe, Pipes

BUFFER_SIZE = 128 * 1024
"""Bytes of one read, and the most that is kept for a peer that reads slowly."""

_BULK = 8 * 1024
"""After so many bytes of one read there are probably more."""
_ROUNDS = 4
"""Reads of one direction before others have their turn."""
_ANSWER_GRACE = 1.0  # seconds for the answer of a socket that takes no more bytes
_HUNG_UP = select.EPOLLRDHUP
_NO_SPLICE = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_NOT_NOW = os.SPLICE_F_NONBLOCK
_ERRORS = (OSError, TlsBroken)

Ending: TypeAlias = Literal["eof", "linger", "idle", "total", "broken"]
Over: TypeAlias = Literal["eof", "cut", "stuck"]
"""How a direction ended: as its source did; its source broke; its sink takes no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Bytes handed on each way, and what ended it: both ends of file, a deadline, or a broken socket."""

    left_to_right: int
    right_to_left: int
    ending: Ending


class Means:
    """What all relays of a process share: the buffer, and the pipes. A context manager that closes the pipes."""

    def __init__(self, *, buffer: Buffer | None = None, pipes: Pipes | None = None) -> None:
        self.buffer = buffer or Buffer(BUFFER_SIZE)
        self.pipes = pipes or Pipes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pipes.close()


class Tls:
    """One end of a relay: a TLS connection after its handshake, and its source on the hub. Owns both."""

    __slots__ = ("connection", "fd", "read", "source", "write_view")

    def __init__(self, connection: TlsSocket, source: Source) -> None:
        self.connection = connection
        self.fd = connection.socket.fileno()
        self.source = source
        self.read = connection.read_many
        self.write_view = connection.write_view

    @property
    def is_at_end(self) -> bool:
        """Whether the next read tells of an end that the socket will not become readable for."""
        return self.connection.is_at_end

    def end(self) -> int:
        """Sends close_notify, 1 or `WANT_WRITE`; what the peer still sends can be read."""
        return self.connection.shutdown()

    def abort(self) -> None:
        """Closes without close_notify, so that the peer knows that something was cut."""
        self.source.close()
        self.connection.socket.close()

    def close(self) -> None:
        """Sends close_notify if the socket takes it at once, and closes it; again does nothing."""
        if self.connection.socket.fileno() >= 0:
            self.connection.shutdown()
        self.abort()


End: TypeAlias = Plain | Tls


async def relay(
    work: Work,
    left: End,
    right: End,
    means: Means,
    *,
    first: bytes = b"",
    linger: float = 60.0,
    idle: float | None = None,
    total: float | None = None,
) -> Relayed:
    """Relays until the end and closes both ends. Never raises for what a socket does: `Relayed.ending` tells.

    `first` is sent to `right` before anything else, and not counted. `linger` is how many seconds the second direction may go on after
    the first ended; `idle`, how many without a byte either way; `total`, how many from now whatever happens. The end of the hub aborts
    both ends.
    """
    forth, back = _Way(left, right, means, first), _Way(right, left, means)
    last = math.inf if total is None else work.hub.now + total
    pair = _Pair(work, forth, back, linger=linger, idle=math.inf if idle is None else idle, last=last)
    work.within(math.inf)
    try:
        await pair.run()
    except GeneratorExit:
        left.abort()
        right.abort()
        raise
    finally:
        forth.drop()
        back.drop()
        left.close()
        right.close()
    return Relayed(left_to_right=forth.count - len(first), right_to_left=back.count, ending=pair.ending)


class _Way:
    """One direction. After each `step` it waits for `events` of the end `at`, or is over."""

    __slots__ = ("_buffer", "_can_splice", "_has_ended", "_held", "_is_bulk", "_is_first", "_pipe", "_piped", "_pipes",
                 "at", "count", "events", "is_last", "over", "sink", "source")  # fmt: skip

    def __init__(self, source: End, sink: End, means: Means, first: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.count = 0
        self.at = source
        self.events = IN
        self.over: Over | None = None
        self.is_last = False  # the other direction has ended, as it should
        self._buffer = means.buffer
        self._pipes = means.pipes
        self._can_splice = isinstance(source, Plain) and isinstance(sink, Plain)
        self._is_bulk = False
        self._has_ended = False
        self._held: bytes = first
        self._is_first = bool(first)
        self._pipe: Pipe | None = None
        self._piped = 0

    def step(self) -> None:
        """Moves what can be moved now."""
        is_first = self._is_first
        if is_first and not self._take_with_first():
            return
        if self._pipe is not None:
            if not self._send_piped(self._pipe):
                return
        elif self._held and not self._send(memoryview(self._held)):
            return
        if self._has_ended:
            self._hand_on_the_end()
            return
        rounds = 0 if is_first and self._can_splice else _ROUNDS  # a plain source was read just now
        while rounds > 0 or self.source.is_at_end:
            rounds -= 1
            try:
                size = self._move()
            except _ERRORS:
                self.over = "cut"
                return
            if size <= 0:
                if size == ENDED:
                    self._hand_on_the_end()
                else:
                    self._wait(self.source, size)
                return
            if self._pipe is None:
                if not self._send(self._buffer.view[:size]):
                    return
            elif not self._send_piped(self._pipe):
                return
            self._is_bulk = size >= _BULK
            if not self._is_bulk and not self.source.is_at_end:
                break
        self.at = self.source
        self.events = IN

    def _take_with_first(self) -> bool:
        """Lets what the source has sent already go together with what comes first: one send, and one wake of who reads it."""
        self._is_first = False
        try:
            size = self.source.read(self._buffer)
        except _ERRORS:
            self.over = "cut"
            return False
        if size > 0:  # an end is there to be read again
            self._held += bytes(self._buffer.view[:size])
        return True

    def drop(self) -> None:
        """Gives up what was not handed on."""
        if self._pipe is not None:
            self._pipes.give(self._pipe, is_empty=not self._piped)
            self._pipe = None

    def _move(self) -> int:
        """Takes bytes from the source, into a pipe or into the shared buffer: how many, or why none."""
        if self._is_bulk and self._can_splice and (pipe := self._pipes.take()) is not None:
            size = WANT_READ
            try:
                size = os.splice(self.source.fd, pipe.into, SIZE, flags=_NOT_NOW)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in _NO_SPLICE:
                    raise
                self._can_splice = False
            finally:
                if size > 0:
                    self._pipe = pipe
                    self._piped = size
                else:
                    self._pipes.give(pipe)
            if self._can_splice:
                return size
        return self.source.read(self._buffer)

    def _send(self, data: memoryview) -> bool:
        """Whether all of it was handed on; else the rest is kept, or nothing more can be sent."""
        try:
            while data:
                size = self.sink.write_view(data)
                if size < 0:
                    self._held = bytes(data)
                    self._wait(self.sink, size)
                    return False
                self.count += size
                data = data[size:]
        except _ERRORS:
            self.over = "stuck"
            return False
        self._held = b""
        return True

    def _send_piped(self, pipe: Pipe) -> bool:
        """As `_send`, of what is in the pipe."""
        try:
            while self._piped:
                size = os.splice(pipe.out, self.sink.fd, self._piped, flags=_NOT_NOW)
                self.count += size
                self._piped -= size
        except BlockingIOError:
            self._wait(self.sink, WANT_WRITE)
            return False
        except OSError as error:
            if error.errno not in _NO_SPLICE:
                self.over = "stuck"
                return False
            self._can_splice = False
            held = os.read(pipe.out, self._piped)
            self._piped = 0
            self.drop()
            return self._send(memoryview(held))
        self.drop()
        return True

    def _hand_on_the_end(self) -> None:
        self._has_ended = True
        if self.is_last and isinstance(self.sink, Plain):
            self.over = "eof"  # closing tells
            return
        try:
            result = self.sink.end()
        except _ERRORS:
            self.over = "stuck"
            return
        if result < 0:
            self._wait(self.sink, result)
        else:
            self.over = "eof"

    def _wait(self, end: End, wanted: int) -> None:
        self.at = end
        self.events = IN if wanted == WANT_READ else OUT


class _Pair:
    """What the two directions share: one deadline, which moves with the traffic and is bounded once a direction ended."""

    def __init__(self, work: Work, forth: _Way, back: _Way, *, linger: float, idle: float, last: float) -> None:
        self.ending: Ending = "eof"
        self._work = work
        self._ways = (forth, back)
        self._linger = linger
        self._idle = idle
        self._last = last
        self._until = last
        self._has_hung_up = False
        self._unsent = math.inf  # bytes in the kernel, when they were last looked at; more may have been sent since the last step

    async def run(self) -> None:
        left, right = self._ways[0].source, self._ways[0].sink
        ready = left  # which often has sent something already
        while True:
            for way in self._ways:
                if way.at is ready and way.over is None and self._is_end_after_step(way):
                    return
            try:
                ready = await self._ready(left, right)
            except Expired:
                if self.ending != "broken":
                    self.ending = self._overdue()
                return
            if not self._has_hung_up and not self._awaited(ready):
                self._has_hung_up = True
                self._idle = min(self._idle, self._linger)
                self._touch()

    async def _ready(self, left: End, right: End) -> End:
        """The end at which something can be done. Raises `Expired`."""
        while True:
            try:
                events = await self._work.wait(left.source, self._wanted(left), right.source, self._wanted(right))
            except Expired:
                if not self._has_hung_up or self._until <= self._work.hub.now or not self._is_draining():
                    raise
                self._touch()
            else:
                return left if events else right

    def _is_draining(self) -> bool:
        """Whether the kernel has handed on any of its bytes since the last look: it says so to `wait` for a large part of them only."""
        unsent = sum(unsent_bytes(end.fd) for end in (self._ways[0].source, self._ways[0].sink))
        is_less = unsent < self._unsent
        self._unsent = unsent
        return is_less

    def _wanted(self, end: End) -> int:
        """The events that the two directions wait for at an end; the end of its peer, where they wait for none."""
        return self._awaited(end) or (0 if self._has_hung_up else _HUNG_UP)

    def _awaited(self, end: End) -> int:
        events = 0
        for way in self._ways:
            if way.over is None and way.at is end:
                events |= way.events
        return events

    def _is_end_after_step(self, way: _Way) -> bool:
        """Whether the relay ends with what one direction has done now."""
        way.step()
        self._unsent = math.inf
        self._touch()
        if way.over is None:
            return False
        if way.over == "cut":
            self.ending = "broken"
            way.sink.abort()
            return True
        if way.over == "stuck":
            self.ending = "broken"
        else:
            for other in self._ways:
                other.is_last = True
        self._until = min(self._until, self._work.hub.now + (_ANSWER_GRACE if way.over == "stuck" else self._linger))
        self._touch()
        return all(each.over is not None for each in self._ways)

    def _overdue(self) -> Ending:
        if self._until > self._work.hub.now:
            return "idle"
        return "linger" if self._until < self._last else "total"

    def _touch(self) -> None:
        self._work.deadline = min(self._until, self._work.hub.now + self._idle)
