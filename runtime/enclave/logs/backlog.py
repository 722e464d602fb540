"""Lines that wait for the parent: a bounded queue for each stream of each process, from which the oldest lines go first when it is full.

Runs in PID 1, without I/O; times are arguments. What is dropped is counted, and the count travels with the next line of that stream. No
stream can push out another's lines. Lines leave in the order in which they came, one by one or in sealed batches.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.protocol.link import Log, Sealed
from runtime.protocol.link_values import LINE_MAX, SEALED_LINES_MAX, Stream
from runtime.protocol.log_batch import BATCH_SIZE, Batch, LogLine, LogRecipient

SIZE = 4 * 1024 * 1024
"""Bytes of a backlog that nobody has configured."""
BATCH_SECONDS = 0.2
"""How long a line may wait for others to be sealed with."""

_OVERHEAD = 200
"""What a line costs besides its bytes."""

Numbered = Callable[[int], Log | Sealed]
"""Makes the message of the sequence that it travels under."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    order: int
    since: float
    data: bytes
    dropped: int
    is_partial: bool


@dataclass(slots=True)
class _Queue:
    process: str
    stream: Stream
    lines: deque[_Waiting] = field(default_factory=deque)
    size: int = 0
    dropped_first: int = 0
    """Lines dropped before the first one that waits."""
    dropped_last: int = 0
    """Lines dropped behind the last one that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """To whom, and what every batch of this boot is bound to (sealed_logs.py)."""

    recipient: LogRecipient
    boot_id: bytes
    token: bytes = field(repr=False)


class Backlog:
    """At most `size` bytes, of which `window` are lines that were sent and are not acknowledged, held by the link; the rest is shared
    evenly by `streams`, but each keeps at least its newest line."""

    def __init__(self, *, size: int = SIZE, streams: int = 2, sealing: Sealing | None = None) -> None:
        self.window = size // 4
        self._share = (size - self.window) // streams
        self._sealing = sealing
        self._queues: dict[tuple[str, Stream], _Queue] = {}
        self._size = 0
        self._order = 0
        self._batch = 0
        self._is_finished = False
        self._has_ended = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, the mark of the end included."""
        return not self._size and not self._is_end_due

    def add(self, process: str, stream: Stream, line: bytes, *, now: float, is_partial: bool = False) -> None:
        """The newest line of a stream, cut to 32 KiB."""
        queue = self._queue(process, stream)
        self._order += 1
        waiting = _Waiting(self._order, now, line[:LINE_MAX], queue.dropped_last, is_partial)
        queue.dropped_last = 0
        queue.lines.append(waiting)
        self._account(queue, len(waiting.data) + _OVERHEAD)
        while queue.size > self._share and len(queue.lines) > 1:
            oldest = queue.lines.popleft()
            queue.dropped_first += 1 + oldest.dropped
            self._account(queue, -len(oldest.data) - _OVERHEAD)

    def lose(self, process: str, stream: Stream, count: int) -> None:
        """So many lines of that stream, newer than all that wait, were dropped before they came here."""
        self._queue(process, stream).dropped_last += count

    def take(self, now: float) -> Numbered | None:
        """The next message, for which the caller has room; None when none is due."""
        if self._sealing is not None:
            return self._take_batch(self._sealing) if self.due <= now else None
        line = self._take_line()
        if line is None:
            return None
        return lambda sequence: Log(
            sequence=sequence,
            process=line.process,
            stream=line.stream,
            line=line.data,
            dropped=line.dropped,
            is_partial=line.is_partial,
        )

    @property
    def due(self) -> float:
        """When `take` gives a message if nothing more comes; infinity when nothing waits."""
        if self._is_end_due or self._size >= BATCH_SIZE or (self._size and self._sealing is None):
            return -math.inf
        return min((queue.lines[0].since for queue in self._queues.values() if queue.lines), default=math.inf) + BATCH_SECONDS

    def finish(self) -> list[tuple[str, Stream, int]]:
        """No line comes any more: what waits is due now. Gives the (process, stream, lines) that were dropped with no line behind them."""
        self._is_finished = True
        return [(queue.process, queue.stream, queue.dropped_last) for queue in self._queues.values() if queue.dropped_last]

    @property
    def _is_end_due(self) -> bool:
        return self._is_finished and self._sealing is not None and not self._has_ended

    def _take_batch(self, sealing: Sealing) -> Numbered:
        lines: list[LogLine] = []
        size = 0
        while size < BATCH_SIZE and len(lines) < SEALED_LINES_MAX and (line := self._take_line()) is not None:
            lines.append(line)
            size += len(line.data) + _OVERHEAD
        self._batch += 1
        self._has_ended = self._is_finished and not self._size
        batch = Batch(token=sealing.token, number=self._batch, lines=tuple(lines), is_last=self._has_ended)
        return lambda sequence: Sealed(
            sequence=sequence,
            sealed=sealing.recipient.seal(batch, boot_id=sealing.boot_id, sequence=sequence),
            lines=len(lines),
        )

    def _take_line(self) -> LogLine | None:
        queue = min((queue for queue in self._queues.values() if queue.lines), key=lambda queue: queue.lines[0].order, default=None)
        if queue is None:
            return None
        waiting = queue.lines.popleft()
        self._account(queue, -len(waiting.data) - _OVERHEAD)
        dropped, queue.dropped_first = queue.dropped_first + waiting.dropped, 0
        return LogLine(
            process=queue.process, stream=queue.stream, data=waiting.data, dropped=dropped, is_partial=waiting.is_partial
        )

    def _queue(self, process: str, stream: Stream) -> _Queue:
        return self._queues.setdefault((process, stream), _Queue(process, stream))

    def _account(self, queue: _Queue, size: int) -> None:
        queue.size += size
        self._size += size
