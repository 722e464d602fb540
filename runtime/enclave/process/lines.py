"""Cuts a process's output into lines: bytes as they came, each at most `limit` long, never waiting for an end that does not come."""

from collections.abc import Iterator


class LineSplitter:
    """Pull style: `feed` what was read and iterate over what is whole. A longer line comes in pieces of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that `data` completes, without their line ends."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            yield from self._pieces(line)
        while len(self._partial) > self._limit:
            yield self._partial[: self._limit]
            self._partial = self._partial[self._limit :]

    def finish(self) -> Iterator[bytes]:
        """What was left without a line end."""
        if self._partial:
            yield from self._pieces(self._partial)
        self._partial = b""

    def _pieces(self, line: bytes) -> Iterator[bytes]:
        for start in range(0, max(1, len(line)), self._limit):
            yield line[start : start + self._limit]
