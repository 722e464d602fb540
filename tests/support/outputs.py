"""Where the output of a process goes in a test: line by line to a function."""

from collections.abc import Callable, Iterable
from functools import partial

from runtime.enclave.logs.lines import Line, LineSplitter
from runtime.enclave.process.customer import OpenOutput
from runtime.protocol.link_values import Stream


class _Lines:
    def __init__(self, on_line: Callable[[bytes], None], limit: int) -> None:
        self._on_line = on_line
        self._splitter = LineSplitter(limit)

    def feed(self, data: bytes) -> bytes | None:
        return self._hand_on(self._splitter.feed(data))

    def close(self) -> bytes | None:
        return self._hand_on(self._splitter.finish())

    def _hand_on(self, lines: Iterable[Line]) -> bytes | None:
        last = None
        for line in lines:
            last = line.data
            self._on_line(last)
        return last


def lines_to(on_line: Callable[[str, Stream, bytes], None], limit: int = 32 * 1024) -> OpenOutput:
    """`on_line` gets every line, or piece of at most `limit` bytes, with its process and stream."""
    return lambda process, stream: _Lines(partial(on_line, process, stream), limit)
