"""How much one process may write in the long run, counted before anything is done with it: what is over costs next to nothing.

Pure; time is an argument, in seconds, and never goes back.
"""

from dataclasses import dataclass

_BACK = 4
"""Once over, nothing is taken until one in so many of each burst has come back: runs of whole lines, instead of a line here and there."""


@dataclass(slots=True)
class _Tokens:
    rate: float
    most: float
    left: float

    def refill(self, seconds: float) -> None:
        self.left = min(self.most, self.left + self.rate * seconds)

    @property
    def is_back(self) -> bool:
        return self.left >= max(1.0, self.most / _BACK)


class RateLimit:
    """Lines and bytes a second, each with a burst. A line counts by its line end, so what has none counts by its bytes alone."""

    def __init__(self, *, lines: float, lines_burst: int, size: float, size_burst: int, now: float) -> None:
        self._lines = _Tokens(lines, lines_burst, lines_burst)
        self._size = _Tokens(size, size_burst, size_burst)
        self._filled = now
        self._is_over = False

    def admit(self, data: bytes, now: float) -> int:
        """How many of the first bytes of `data` may pass: up to a line end, unless the first line alone is over."""
        for tokens in (self._lines, self._size):
            tokens.refill(now - self._filled)
        self._filled = now
        if self._is_over:
            if not (self._lines.is_back and self._size.is_back):
                return 0
            self._is_over = False
        lines, size = data.count(b"\n"), len(data)
        if lines > self._lines.left or size > self._size.left:
            self._is_over = True
            size = self._cut(data)
            lines = data.count(b"\n", 0, size)
        self._lines.left -= lines
        self._size.left -= size
        return size

    def _cut(self, data: bytes) -> int:
        size = min(len(data), int(self._size.left))
        end = 0
        for _ in range(int(self._lines.left)):
            following = data.find(b"\n", end, size) + 1
            if not following:
                break
            end = following
        else:
            return end
        return end or size
