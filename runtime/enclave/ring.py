"""What the enclave has reported and the parent has not acknowledged: a bounded ring that drops the oldest and counts what it dropped.

Pure. Positions are the sequences of link.py: one count for a boot, so that a resent message is known to whoever has seen it.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice

BATCH_MAX = 64 * 1024


class Ring:
    """Frames by sequence, at most `most_frames` and `most_bytes`, of which the first `_sent` were sent on the present connection."""

    def __init__(self, *, most_frames: int, most_bytes: int) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._frames: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._sent = 0
        self._next = 1
        self.dropped = 0

    def push(self, encode: Callable[[int], bytes]) -> None:
        """Adds the frame that `encode` makes for the next sequence. Never fails for want of room."""
        frame = encode(self._next)
        self._frames.append((self._next, frame))
        self._size += len(frame)
        self._next += 1
        while len(self._frames) > self._most_frames or (self._size > self._most_bytes and len(self._frames) > 1):
            self._pop()
            self.dropped += 1

    def take_unsent(self) -> bytes:
        """Frames of about `BATCH_MAX` bytes that were not sent on this connection, and now count as sent; empty when there are none."""
        batch = bytearray()
        for _, frame in islice(self._frames, self._sent, None):
            batch += frame
            self._sent += 1
            if len(batch) >= BATCH_MAX:
                break
        return bytes(batch)

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
        self._size -= len(self._frames.popleft()[1])
        self._sent = max(0, self._sent - 1)
