"""What a judge found: checks with what was measured and what was asked, as a table for a person and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "FAIL", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question: what was `found`, what was `asked`, and what a reader has to know of it, line by line."""

    name: str
    passed: bool
    found: str
    asked: str
    notes: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one judge found. `missing` says what kept it from running."""

    judge: str
    checks: list[Check] = field(default_factory=list)
    missing: str | None = None
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        if self.missing is not None:
            return "not run"
        return "ok" if self.checks and all(check.passed for check in self.checks) else "FAIL"


def table(outcomes: Sequence[Outcome]) -> str:
    """For a terminal: a line for each check, its notes below it."""
    lines = [f"{'':7} {'judge':12} {'check':44} {'found':34} asked"]
    for outcome in outcomes:
        if outcome.missing is not None:
            lines.append(f"{'not run':7} {outcome.judge:12} {outcome.missing}")
        for check in outcome.checks:
            status = "ok" if check.passed else "FAIL"
            lines.append(f"{status:7} {outcome.judge:12} {check.name:44} {check.found:34} {check.asked}".rstrip())
            lines += [f"{'':21}{note}" for note in check.notes]
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("ok", "FAIL", "not run")}
    return "\n".join([*lines, "", ", ".join(f"{count} {status}" for status, count in counts.items() if count)]) + "\n"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """For programs: one object, the judges by name."""
    found = {outcome.judge: asdict(outcome) | {"status": outcome.status} for outcome in outcomes}
    return json.dumps(found, indent=1) + "\n"
