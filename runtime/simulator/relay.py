"""Copies bytes between two streams until both directions ended, or an error or a deadline ended them.

The rules (half-close as in ghostunnel's copyData): an end of one direction is handed on as an end, and gives the other direction
`linger` seconds. A stream that breaks while it is read was cut off, not finished: the other one is aborted, so that its reader
cannot take a truncated message for a whole one. A stream that takes no more bytes may still have an answer under way: what has
arrived from it is delivered first. Whatever happens, both streams are closed, so no descriptor stays behind.
"""

import math
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

CHUNK = 64 * 1024
"""Bytes of one read."""

_ANSWER_GRACE = 1.0  # seconds for the answer of a stream that takes no more bytes
_STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError)

Ending: TypeAlias = Literal["eof", "linger", "idle", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Bytes handed on each way, and what ended it: both ends of file, a deadline, or a broken stream."""

    left_to_right: int
    right_to_left: int
    ending: Ending


async def relay(
    left: trio.abc.HalfCloseableStream,
    right: trio.abc.HalfCloseableStream,
    *,
    linger: float = 60.0,
    idle: float | None = None,
) -> Relayed:
    """Relays until the end and closes both streams. Never raises for what a stream does: `Relayed.ending` tells.

    `linger` is how many seconds the second direction may go on after the first ended; `idle`, how many without a byte either way.
    """
    async with left, right:
        async with trio.open_nursery() as nursery:
            pair = _Pair(nursery.cancel_scope, linger=linger, idle=math.inf if idle is None else idle)
            forth, back = _Direction(left, right), _Direction(right, left)
            nursery.start_soon(pair.copy, forth)
            nursery.start_soon(pair.copy, back)
        for stream in pair.cut_off:
            await _abort(stream)
    return Relayed(left_to_right=forth.count, right_to_left=back.count, ending=pair.ending())


class _Direction:
    def __init__(self, source: trio.abc.HalfCloseableStream, sink: trio.abc.HalfCloseableStream) -> None:
        self.source = source
        self.sink = sink
        self.count = 0


class _Pair:
    """What the two directions share: one scope, whose deadline moves with the traffic and is bounded once a direction ended."""

    def __init__(self, scope: trio.CancelScope, *, linger: float, idle: float) -> None:
        self.cut_off: list[trio.abc.HalfCloseableStream] = []
        self._scope = scope
        self._linger = linger
        self._idle = idle
        self._until = math.inf
        self._broken = False
        self._touch()

    def ending(self) -> Ending:
        if self._broken:
            return "broken"
        if not self._scope.cancelled_caught:
            return "eof"
        return "idle" if self._scope.deadline < self._until else "linger"

    async def copy(self, way: _Direction) -> None:
        try:
            while data := await way.source.receive_some(CHUNK):
                self._touch()
                if not await self._send(way, data):
                    return
                self._touch()
        except _STREAM_ERRORS:
            self._broken = True
            self.cut_off.append(way.sink)
            self._scope.cancel()
            return
        self._end_within(self._linger)
        try:
            await way.sink.send_eof()
        except _STREAM_ERRORS:
            self._broken = True
            self._end_within(_ANSWER_GRACE)

    async def _send(self, way: _Direction, data: bytes | bytearray) -> bool:
        try:
            await way.sink.send_all(memoryview(data))
        except _STREAM_ERRORS:
            self._broken = True
            self._end_within(_ANSWER_GRACE)
            return False
        way.count += len(data)
        return True

    def _end_within(self, seconds: float) -> None:
        self._until = min(self._until, trio.current_time() + seconds)
        self._touch()

    def _touch(self) -> None:
        self._scope.deadline = min(self._until, trio.current_time() + self._idle)


async def _abort(stream: trio.abc.HalfCloseableStream) -> None:
    """Closes so that the peer sees an abort: a reset from a socket, an end without close_notify from TLS."""
    if isinstance(stream, trio.SocketStream):
        with suppress(*_STREAM_ERRORS, OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
