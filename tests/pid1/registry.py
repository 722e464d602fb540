"""The list of checks, and the table of who passed which."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.pid1.subjects import SUBJECTS, Subject

STATE = Path(__file__).parents[2] / ".state" / "test"
TABLE = STATE / "pid1.txt"
_ROWS = STATE / "pid1"

Check = Callable[[Subject], str | None]
"""Raises AssertionError when the subject fails; may give a figure that was measured."""

PASSED = "pass"
FAILED = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`peers_miss`: one of the two that no other first process passes. `one_by_one`: subjects must not disturb each other."""

    title: str
    check: Check
    peers_miss: bool
    one_by_one: bool

    @property
    def name(self) -> str:
        return self.check.__name__


CHECKS: list[Entry] = []


def check(title: str, *, peers_miss: bool = False, one_by_one: bool = False) -> Callable[[Check], Check]:
    """Puts a function into the table."""

    def add(function: Check) -> Check:
        CHECKS.append(Entry(title=title, check=function, peers_miss=peers_miss, one_by_one=one_by_one))
        return function

    return add


def note(entry: Entry, results: Mapping[str, str]) -> str:
    """Keeps one row and writes the table anew, of the rows that there are: tests run in several processes and in any order."""
    _ROWS.mkdir(parents=True, exist_ok=True)
    row = _ROWS / f"{entry.name}.json"
    row.with_suffix(".new").write_text(json.dumps(results))
    row.with_suffix(".new").replace(row)
    rows = {path.stem: json.loads(path.read_text()) for path in _ROWS.glob("*.json")}
    table = render({each.title: rows[each.name] for each in CHECKS if each.name in rows})
    fresh = TABLE.with_suffix(f".{entry.name}")
    fresh.write_text(table)
    fresh.replace(TABLE)
    return render({entry.title: results})


def render(rows: Mapping[str, Mapping[str, str]]) -> str:
    """Checks down, subjects across, and how many each passed."""
    names = [subject.name for subject in SUBJECTS]
    cells = [[title, *(results.get(name, "") for name in names)] for title, results in rows.items()]
    passed = [sum(results.get(name, "").startswith(PASSED) for results in rows.values()) for name in names]
    lines = [["", *names], *cells, [f"passed of {len(rows)}", *map(str, passed)]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)
