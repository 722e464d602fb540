"""The bounded cursor that every decoder reads through: it cannot be moved past what was received."""

from runtime.protocol.errors import Malformed


class Cursor:
    """Reads one byte string from front to back. Every read past the end is `Malformed` with reason "truncated"."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self._data):
            raise Malformed(f"{count} bytes expected, {self.remaining} left", "truncated")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def peek(self) -> int:
        """The next byte, left in place."""
        if self.position >= len(self._data):
            raise Malformed("ends early", "truncated")
        return self._data[self.position]

    def uint(self, size: int) -> int:
        """A big-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def since(self, start: int) -> bytes:
        """What was read from the position `start` to here."""
        return self._data[start : self.position]

    def finish(self) -> None:
        """Everything must have been read: what is left is `Malformed` with reason "trailing_bytes"."""
        if self.remaining:
            raise Malformed(f"{self.remaining} bytes after the end", "trailing_bytes")
