"""The boot journal: what happened, for which reason, after how many milliseconds.

Runs in PID 1. Only words of the code's own and numbers are journalled, so that no secret can be; times are monotonic, since the clock is
not known to be right before the NSM has said so.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

import trio

from runtime.protocol.link_values import ENTRIES_MAX, JournalFields, Level, Stage
from runtime.settings import SettingsError

LAST_KEPT = 24
"""Records for the console of a machine whose parent was never met."""


class Recorder(Protocol):
    """Where events go: `ParentLink.journal`, or a list in a test."""

    def __call__(self, level: Level, event: str, /, **fields: int | str | bytes) -> None:
        """Never blocks."""


class BootJournal:
    """Records events. Each carries `elapsed_ms`, the milliseconds since the process started, which was `age` seconds ago.

    `stage` is the stage that the boot is in, None before the first and after the last.
    """

    def __init__(self, record: Recorder, *, age: float = 0.0, clock: Callable[[], float] = trio.current_time) -> None:
        self._record = record
        self._clock = clock
        self._began = self._stage_began = clock() - age
        self._last: deque[tuple[int, str, JournalFields]] = deque(maxlen=LAST_KEPT)
        self.stage: Stage | None = None

    def event(self, name: str, fields: JournalFields, *, level: Level = "info") -> None:
        """One event: `name` is a word such as "nsm.found", as are the names of the fields. What a record has no room for is left out."""
        self._event(name, fields, level, self._clock())

    def begin(self, stage: Stage) -> None:
        """The stage before it, if there is one, has ended. The first one counts from the start of the process."""
        self.end()
        self.stage = stage

    def end(self) -> None:
        """The stage, if the boot is in one, has ended."""
        if self.stage is not None:
            now = self._clock()
            took_ms = int((now - self._stage_began) * 1000)
            self._stage_began = now
            self._event("stage.ended", {"stage": self.stage, "took_ms": took_ms}, "info", now)
        self.stage = None

    def last(self) -> list[str]:
        """The last records as lines without a control character."""
        return [f"+{elapsed_ms} ms {name}" + "".join(map(_shown, fields.items())) for elapsed_ms, name, fields in self._last]

    def _event(self, name: str, fields: JournalFields, level: Level, now: float) -> None:
        elapsed_ms = int((now - self._began) * 1000)
        kept = dict(islice(fields.items(), ENTRIES_MAX - 1)) | {"elapsed_ms": elapsed_ms}
        self._last.append((elapsed_ms, name, fields))
        self._record(level, name, **kept)


def _shown(field: tuple[str, int | str | bytes]) -> str:
    name, value = field
    return f" {name}={value.hex() if isinstance(value, bytes) else ascii(value)}"


def reason_of(error: BaseException) -> str:
    """The stable code of an error, a word; never its text, which may quote what it failed on."""
    match error:
        case SettingsError():
            return "config_invalid"
        case OSError():
            return "os_error"
        case _:
            return str(getattr(error, "reason", "internal"))
