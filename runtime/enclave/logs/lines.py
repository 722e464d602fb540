"""Cuts a process's output into lines: bytes as they came, each at most `limit` long, never waiting for an end that does not come."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its line end, or a piece of one. `is_partial`: no line end follows here; the next line goes on with it."""

    data: bytes = field(repr=False)
    is_partial: bool = False


class LineSplitter:
    """Pull style: `feed` what was read and iterate over what is whole. A longer line comes in pieces of `limit` bytes.

    What is `skip`ped takes whole lines with it: `lost` counts them. Where lines are cut does not depend on what was skipped, so every
    byte that was written belongs to one line that came or to one that was counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = b""
        self._missing = 0
        """Bytes of the present line that were skipped; the rest of it is lost too."""
        self.lost = 0

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that `data` completes."""
        if self._missing:
            data = self._lose_rest(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            yield from self._pieces(line)
        while len(self._partial) > self._limit:
            yield Line(self._partial[: self._limit], is_partial=True)
            self._partial = self._partial[self._limit :]

    def skip(self, data: bytes) -> None:
        """Passes over `data` and the line that it begins in."""
        size = len(data)
        line = -(len(self._partial) + self._missing)  # where the present line begins, seen from `data`
        self._partial = b""
        self.lost += data.count(b"\n")
        # Only the last line end within a line's length matters: lines before it are short. So this looks once or twice at each byte.
        while line + self._limit < size:
            end = data.rfind(b"\n", max(line, 0), line + self._limit + 1)
            if end < 0:
                self.lost += 1
                line += self._limit
            else:
                line = end + 1
        end = data.rfind(b"\n", max(line, 0))
        self._missing = size - (line if end < 0 else end + 1)

    def finish(self) -> Iterator[Line]:
        """What was left without a line end."""
        if self._partial:
            *pieces, last = self._pieces(self._partial)
            yield from pieces
            yield Line(last.data, is_partial=True)
        self.lost += self._missing > 0
        self._partial, self._missing = b"", 0

    def _lose_rest(self, data: bytes) -> bytes:
        """What of `data` is behind the present line."""
        left = self._limit - self._missing
        end = data.find(b"\n", 0, left + 1)
        if end < 0 and len(data) <= left:
            self._missing += len(data)
            return b""
        self.lost += 1
        self._missing = 0
        return data[left if end < 0 else end + 1 :]

    def _pieces(self, line: bytes) -> Iterator[Line]:
        starts = range(0, max(1, len(line)), self._limit)
        for start in starts:
            yield Line(line[start : start + self._limit], is_partial=start != starts[-1])
