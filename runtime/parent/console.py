"""What a parent shows of itself and of its enclave: legible lines or JSON on standard error, JSON lines in a file, a short memory.

An enclave is hostile here: nothing it says may move a terminal's cursor, forge a line or fill the memory. Text is shown with every
character that is not printable escaped; in JSON, bytes are text with backslash escapes (log lines) or hex (journal values).
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, TextIO, TypeAlias

import trio

from runtime.net.clock import unix_now

Detail: TypeAlias = int | str | bytes | None
Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Kind: TypeAlias = Literal["parent", "state", "journal", "log", "sealed", "exit", "dropped", "metrics"]

RECENT = 500
"""Events remembered for `enclave logs`."""


class Console:
    """Takes events, never fails and never blocks for long. `events` is a file opened for appending; the caller closes both files.

    Events are numbered from 1; `count` of them have come, of which the last are `recent`.
    """

    def __init__(
        self, stderr: TextIO, *, as_json: bool = False, events: TextIO | None = None, clock: Callable[[], float] = unix_now
    ) -> None:
        self._stderr = stderr
        self._as_json = as_json
        self._events = events
        self._clock = clock
        self._arrived = trio.Event()
        self.recent: deque[dict[str, object]] = deque(maxlen=RECENT)
        self.count = 0

    def show(
        self,
        kind: Kind,
        level: Level,
        event: str,
        details: Mapping[str, Detail] | None = None,
        *,
        line: bytes | None = None,
        kept: Mapping[str, str] | None = None,
    ) -> None:
        """One event. `line` is a customer process's output, shown as the message itself; `kept` goes to the file of events alone."""
        record: dict[str, object] = {
            "time": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            "level": level,
            "event": event,
        }
        for name, value in (details or {}).items():
            record.setdefault(name, value.hex() if isinstance(value, bytes) else value)
        if line is not None:
            record["line"] = line.decode(errors="backslashreplace")
        self.recent.append(record)
        self.count += 1
        as_json = json.dumps(record)
        # A console that nobody reads any more is no reason to stop relaying.
        with suppress(OSError):
            self._stderr.write((as_json if self._as_json else legible(record)) + "\n")
            self._stderr.flush()
        if self._events is not None:
            with suppress(OSError):
                self._events.write((json.dumps({**record, **kept}) if kept else as_json) + "\n")
                self._events.flush()
        self._arrived.set()
        self._arrived = trio.Event()

    def after(self, number: int, *, most_bytes: int) -> list[str]:
        """The remembered events with a higher number, oldest first, as JSON: about `most_bytes` in all, at least one if there is any."""
        forgotten = self.count - len(self.recent)
        found: list[str] = []
        for record in islice(self.recent, max(0, number - forgotten), None):
            found.append(json.dumps(record))
            most_bytes -= len(found[-1])
            if most_bytes <= 0:
                break
        return found

    async def until_after(self, number: int) -> None:
        """Waits until there is an event with a higher number."""
        while self.count <= number:
            await self._arrived.wait()

    def parent(self, event: str, /, **details: Detail) -> None:
        """An event of the parent's own."""
        self.show("parent", "info", event, details)

    def warn(self, event: str, /, **details: Detail) -> None:
        """An event of the parent's own that somebody should look at."""
        self.show("parent", "warning", event, details)


def printable(text: str) -> str:
    """`text` with what a terminal could act on, or a reader be deceived by (direction marks, invisible characters), escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text)


def legible(record: Mapping[str, object]) -> str:
    """An event as one line that is safe to show on a terminal."""
    time, level = str(record.get("time", "")), str(record.get("level", ""))
    shown = f"{time} {level:<7} {record['kind']} {record['event']}".lstrip()
    for name, value in record.items():
        if name not in {"time", "kind", "level", "event", "line"}:
            shown += f" {name}={value}"
    if "line" in record:
        shown += f" | {record['line']}"
    return printable(shown)
