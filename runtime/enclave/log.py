"""The boot journal: which stage began, how it ended, for which reason, after how many milliseconds.

Runs in PID 1. Only words of the code's own and numbers are journalled, so that no secret can be; times are monotonic, since the clock is
not known to be right before the NSM has said so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from runtime.protocol.link_values import Level


class Recorder(Protocol):
    """Where events go: `ParentLink.journal`, or a list in a test."""

    def __call__(self, level: Level, event: str, **fields: int | str | bytes) -> None:
        """Never blocks."""


class BootJournal:
    """Records stages. Every event carries `elapsed_ms` since the journal was made."""

    def __init__(self, record: Recorder, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._record = record
        self._clock = clock
        self._began = clock()

    def event(self, name: str, *, level: Level = "info", **fields: int | str | bytes) -> None:
        """One event: `name` is a word such as "nsm.described"."""
        self._record(level, name, elapsed_ms=self._ms_since(self._began), **fields)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Journals `name.started`, then `name.done` or, with the reason of the error that ends it, `name.failed`."""
        began = self._clock()
        self.event(f"{name}.started")
        try:
            yield
        except BaseException as error:
            self.event(f"{name}.failed", level="error", reason=reason_of(error), took_ms=self._ms_since(began))
            raise
        self.event(f"{name}.done", took_ms=self._ms_since(began))

    def _ms_since(self, then: float) -> int:
        return int((self._clock() - then) * 1000)


def reason_of(error: BaseException) -> str:
    """The stable code of an error that has one, else the name of its class; never its text, which may quote what it failed on."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) else type(error).__name__
