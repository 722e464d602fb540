"""The boot journal: what happened, for which reason, after how many milliseconds.

Runs in PID 1. Only words of the code's own and numbers are journalled, so that no secret can be; times are monotonic, since the clock is
not known to be right before the NSM has said so.
"""

from collections.abc import Callable
from typing import Protocol

import trio

from runtime.protocol.link_values import JournalFields, Level
from runtime.settings import SettingsError


class Recorder(Protocol):
    """Where events go: `ParentLink.journal`, or a list in a test."""

    def __call__(self, level: Level, event: str, /, **fields: int | str | bytes) -> None:
        """Never blocks."""


class BootJournal:
    """Records events. Each carries `elapsed_ms`, the milliseconds since the journal was made."""

    def __init__(self, record: Recorder, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._record = record
        self._clock = clock
        self._began = clock()

    def event(self, name: str, fields: JournalFields, *, level: Level = "info") -> None:
        """One event: `name` is a word such as "nsm.found", as are the names of the fields."""
        self._record(level, name, elapsed_ms=int((self._clock() - self._began) * 1000), **fields)


def reason_of(error: BaseException) -> str:
    """The stable code of an error, a word; never its text, which may quote what it failed on."""
    match error:
        case SettingsError():
            return "config_invalid"
        case OSError():
            return "os_error"
        case _:
            return str(getattr(error, "reason", "internal"))
