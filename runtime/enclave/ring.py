"""What the enclave has reported and the parent has not acknowledged: bounded rings that drop the oldest and count what they dropped.

Pure. Positions are the sequences of link.py: one count for a boot, so that a resent message is known to whoever has seen it.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import count, islice, takewhile

BATCH_MAX = 64 * 1024

Frame = tuple[int, bytes]
"""(sequence, bytes)"""


class Ring:
    """Frames by sequence, at most `most_frames` and `most_bytes`, of which the first so many were sent on the present connection."""

    def __init__(self, *, most_frames: int, most_bytes: int, sequences: Iterator[int] | None = None) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[Frame] = deque()
        self._sequences = sequences or count(1)
        self._sent = 0
        self.size = 0
        self.dropped = 0

    def push(self, encode: Callable[[int], bytes]) -> None:
        """Adds the frame that `encode` makes for the next sequence. Never fails for want of room."""
        sequence = next(self._sequences)
        frame = encode(sequence)
        self._frames.append((sequence, frame))
        self.size += len(frame)
        while len(self._frames) > self._most_frames or (self.size > self._most_bytes and len(self._frames) > 1):
            self._pop()
            self.dropped += 1

    def unsent(self) -> Iterator[Frame]:
        """The frames that were not sent on this connection, in order."""
        return islice(self._frames, self._sent, None)

    def mark_sent(self, sequence: int) -> None:
        """What is up to `sequence` counts as sent."""
        self._sent += sum(1 for _ in takewhile(lambda frame: frame[0] <= sequence, self.unsent()))

    def __len__(self) -> int:
        return len(self._frames)

    def acknowledge(self, sequence: int) -> None:
        """Forgets what was sent up to `sequence`."""
        while self._sent and self._frames[0][0] <= sequence:
            self._pop()

    def resend(self) -> None:
        """A new connection: nothing has been sent on it."""
        self._sent = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything was acknowledged."""
        return not self._frames

    def _pop(self) -> None:
        self.size -= len(self._frames.popleft()[1])
        self._sent = max(0, self._sent - 1)


class Outbox:
    """Two rings under one count of sequences, so that no amount of output can push out a state or an event.

    `events` drops its oldest. `logs` is given no more than it has room for (enclave/logs/backlog.py holds the rest), so it drops nothing.
    """

    def __init__(self, *, most_frames: int, most_bytes: int) -> None:
        sequences = count(1)
        self.events = Ring(most_frames=most_frames, most_bytes=most_bytes, sequences=sequences)
        self.logs = Ring(most_frames=sys.maxsize, most_bytes=sys.maxsize, sequences=sequences)

    def take_unsent(self) -> bytes:
        """Frames of about `BATCH_MAX` bytes, in the order of their sequences, that now count as sent; empty when there are none."""
        batch = bytearray()
        last = 0
        for sequence, frame in merge(self.events.unsent(), self.logs.unsent()):
            batch += frame
            last = sequence
            if len(batch) >= BATCH_MAX:
                break
        self.events.mark_sent(last)
        self.logs.mark_sent(last)
        return bytes(batch)

    def acknowledge(self, sequence: int) -> None:
        """Forgets what was sent up to `sequence`."""
        self.events.acknowledge(sequence)
        self.logs.acknowledge(sequence)

    def resend(self) -> None:
        """A new connection: nothing has been sent on it."""
        self.events.resend()
        self.logs.resend()

    @property
    def is_empty(self) -> bool:
        """Whether everything was acknowledged."""
        return self.events.is_empty and self.logs.is_empty
