"""From the pipes of the customer's processes to the link: rate limit, masks, lines, in this order.

Runs in PID 1 and never waits, so a pipe is always drained: whatever cannot go on is dropped and counted. The bytes are parsed for nothing
but line ends and known secrets.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf

import trio

from runtime.enclave.config import EnclaveConfig, Log
from runtime.enclave.link import ParentLink
from runtime.enclave.logs.backlog import Backlog, Sealing
from runtime.enclave.logs.limits import RateLimit
from runtime.enclave.logs.lines import Line, LineSplitter
from runtime.enclave.logs.masking import MaskedStream, Masks
from runtime.protocol.bundle import Secret
from runtime.protocol.link_values import Stream
from runtime.protocol.log_batch import TOKEN_SIZE

REQUESTS = "ingress:requests"
"""The request log's name among the processes, none of which can be called so."""

DECISIONS = "egress:decisions"
"""The same of the egress log."""

TOLD_SECONDS = 60.0
"""A process that is over its limit is told of once in so many seconds."""


@dataclass(slots=True)
class _Limited:
    """One process: its limit, and what the journal has not heard of yet."""

    limit: RateLimit
    lines: int = 0
    tell_at: float = -inf


class Logs:
    """The output of all processes. Limits and counts outlive the runs of a process."""

    def __init__(self, config: Log, link: ParentLink, masks: Masks, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._config = config
        self._link = link
        self._masks = masks
        self._clock = clock
        self._processes: dict[str, _Limited] = {}

    def open(self, process: str, stream: Stream) -> "StreamOutput":
        """For one stream of one run of a process."""
        config = self._config
        if process not in self._processes:
            limit = RateLimit(
                lines=config.rate,
                lines_burst=config.burst,
                size=config.byte_rate,
                size_burst=config.byte_burst,
                now=self._clock(),
            )
            self._processes[process] = _Limited(limit)
        return StreamOutput(self, process, stream, MaskedStream(self._masks), LineSplitter(config.max_line_size))

    def admit(self, process: str, data: bytes) -> int:
        """How many of the first bytes are within the limits."""
        return self._processes[process].limit.admit(data, self._clock())

    def deliver(self, process: str, stream: Stream, line: Line) -> None:
        """A line for the parent."""
        self._link.log(process, stream, line.data, is_partial=line.is_partial)

    def lose(self, process: str, stream: Stream, lines: int) -> None:
        """So many lines were over the limit."""
        self._link.backlog.lose(process, stream, lines)
        limited = self._processes[process]
        limited.lines += lines
        if limited.lines and self._clock() >= limited.tell_at:
            self._link.journal("warning", "log.limited", process=process, lines=limited.lines)
            limited.lines, limited.tell_at = 0, self._clock() + TOLD_SECONDS


class StreamOutput:
    """One stream of one run: `feed` it what was read, in order, then `close` it. Both give the last line that became whole, or None."""

    def __init__(self, logs: Logs, process: str, stream: Stream, masked: MaskedStream, splitter: LineSplitter) -> None:
        self._logs = logs
        self._process = process
        self._stream: Stream = stream
        self._masked = masked
        self._splitter = splitter

    def feed(self, data: bytes) -> bytes | None:
        """Bytes as they were read from the pipe."""
        size = self._logs.admit(self._process, data)
        last = self._deliver(self._splitter.feed(self._masked.feed(data[:size]))) if size else None
        if size < len(data):
            over = data[size:]
            self._splitter.skip(self._masked.skip(over) + over)
            self._settle()
        return last

    def close(self) -> bytes | None:
        """The pipe has ended, or nobody reads it any more."""
        last = self._deliver(self._splitter.feed(self._masked.finish()))
        return self._deliver(self._splitter.finish()) or last

    def _deliver(self, lines: Iterable[Line]) -> bytes | None:
        last = None
        for line in lines:
            self._settle()
            self._logs.deliver(self._process, self._stream, line)
            last = line.data
        self._settle()
        return last

    def _settle(self) -> None:
        if self._splitter.lost:
            self._logs.lose(self._process, self._stream, self._splitter.lost)
            self._splitter.lost = 0


def open_logs(config: EnclaveConfig, values: Mapping[str, Secret], link: ParentLink, *, boot_id: bytes) -> Logs:
    """From here on `link` carries lines as the config wants them, and neither they nor events show these secrets."""
    masks = Masks(values)
    sealing = None
    if config.log.encrypt_to is not None:
        sealing = Sealing(recipient=config.log.encrypt_to, boot_id=boot_id, token=secrets.token_bytes(TOKEN_SIZE))
    link.gate.masks = masks
    link.backlog = Backlog(size=config.log.buffer_size, streams=2 * len(config.process) + 2, sealing=sealing)
    return Logs(config.log, link, masks)
