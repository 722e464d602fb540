"""What a bench says: a table for a person, JSON for a program."""

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from tests.bench.figures import DIRECT, Results, Spread, spread
from tests.bench.suite import Extent, Figure, Goal, Outcome, Suite, judge

_VERSIONS = (
    ("nginx", ("nginx", "-v")),
    ("haproxy", ("haproxy", "-v")),
    ("wrk", ("wrk", "-v")),
    ("h2load", ("h2load", "--version")),
    ("openssl", ("openssl", "version")),
)


def table(suite: Suite, figures: Sequence[Figure], peers: Sequence[str], outcome: Outcome) -> str:
    """Medians over the rounds with least and most, and how many times a peer's figure ours is, with the same."""
    results, ours = outcome.results, suite.ours.name
    shown = [figure for figure in figures if any(spread(results.of(figure.name, each)) for each in (ours, *peers))]
    rows = [("", ours, *(cell for peer in peers for cell in (peer, f"{ours} / {peer}")))]
    for figure in shown:
        cells = [f"{figure.title}, {figure.unit}", _value(spread(results.of(figure.name, ours)), figure)]
        for peer in peers:
            cells.append(_value(spread(results.of(figure.name, peer)), figure))
            cells.append(_ratio(spread(results.ratios(figure.name, ours, peer))))
        rows.append(tuple(cells))
    lines = ["", f"{suite.name}: median over {results.rounds} rounds (least to most); lower is better", "", *_columns(rows)]
    if (direct := _direct(results)) is not None:
        lines += ["", f"without a subject, at the same rate: p50 {direct[0]:.0f} µs, p99 {direct[1]:.0f} µs"]
    lines += ["", "goals", *_columns([_goal(goal, results) for goal in suite.goals])]
    if outcome.failures:
        lines += ["", "could not be measured", *(f"  {failure}" for failure in outcome.failures)]
    return "\n".join(lines) + "\n"


def as_json(suite: Suite, figures: Sequence[Figure], peers: Sequence[str], extent: Extent, outcome: Outcome) -> dict[str, Any]:
    """Everything: the machine, what was agreed on, each round's values in nanoseconds or KiB, and what follows from them."""
    results, ours = outcome.results, suite.ours.name
    return {
        "bench": suite.name,
        "machine": machine(),
        "extent": asdict(extent),
        "facts": outcome.facts,
        "figures": {
            figure.name: {
                "title": figure.title,
                "unit": figure.unit,
                "values": {
                    subject: [_number(value * figure.scale) for value in values]
                    for subject, values in results.values.get(figure.name, {}).items()
                },
                "ratios": {peer: _spread_json(spread(results.ratios(figure.name, ours, peer))) for peer in peers},
            }
            for figure in figures
        },
        "direct": {
            figure: [_number(value / 1e3) for value in by_subject[DIRECT]]
            for figure, by_subject in results.values.items()
            if DIRECT in by_subject
        },
        "goals": [
            {"goal": goal.title, "most": goal.most, "unit": goal.unit, "found": _spread_json(found), "reached": reached}
            for goal in suite.goals
            for found, reached in [judge(goal, results)]
        ],
        "failures": outcome.failures,
    }


def machine() -> dict[str, object]:
    """Where this runs, and with what."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "OpenSSL of ours": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(),
        **{name: _first_line(command) for name, command in _VERSIONS if shutil.which(command[0])},
    }


def _first_line(command: Sequence[str]) -> str:
    found = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return next(iter(found.stdout.decode(errors="replace").splitlines()), "")


def _goal(goal: Goal, results: Results) -> tuple[str, ...]:
    found, reached = judge(goal, results)
    said = {None: "not measured", True: "reached", False: "MISSED"}[reached]
    if found is None:
        return f"  {goal.title}", f"at most {goal.most:g} {goal.unit}", "", said
    values = f"{_round(found.median)} ({_round(found.least)} to {_round(found.most)})"
    return f"  {goal.title}", f"at most {goal.most:g} {goal.unit}", values, said


def _direct(results: Results) -> tuple[float, float] | None:
    found = [spread(results.of(figure, DIRECT)) for figure in ("p50 beside 0", "p99 beside 0")]
    return (found[0].median / 1e3, found[1].median / 1e3) if found[0] and found[1] else None


def _value(found: Spread | None, figure: Figure) -> str:
    if found is None:
        return "-"
    return f"{_round(found.median * figure.scale)} ({_round(found.least * figure.scale)} to {_round(found.most * figure.scale)})"


def _ratio(found: Spread | None) -> str:
    return "-" if found is None else f"{found.median:.2f} ({found.least:.2f} to {found.most:.2f})"


def _round(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _spread_json(found: Spread | None) -> dict[str, float] | None:
    return None if found is None else {key: _number(value) or 0.0 for key, value in asdict(found).items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")
