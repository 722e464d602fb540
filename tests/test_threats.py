"""The threat model is held by tests: each threat names one that is there, but for what the page says cannot be prevented."""

import re
from pathlib import Path

import pytest

from tests.support.pages import rows, section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "runtime" / "THREATS.md"
ATTACKERS = (
    "## A hostile parent",
    "## An impostor of the provisioner, or a man in the middle with its TLS key",
    "## Strangers, towards the provisioner",
    "## A hostile client",
    "## A hostile enclave, towards the operator",
    "## A hostile image, towards the build machine",
    "## A hostile customer process",
)
UNPREVENTED = re.compile(r"it can\b")


def threats() -> list[tuple[str, list[str]]]:
    """(what an attacker may try, the row's other cells)."""
    return [(row[0], row[1:]) for title in ATTACKERS for row in rows(section(PAGE, title))]


def test_the_page_has_threats_of_every_attacker() -> None:
    counts = [len(list(rows(section(PAGE, title)))) for title in ATTACKERS]
    assert min(counts) >= 5


@pytest.mark.parametrize(("threat", "cells"), threats(), ids=[threat[:60] for threat, _ in threats()])
def test_a_threat_names_a_test_or_is_said_not_to_be_prevented(threat: str, cells: list[str]) -> None:
    named = [word for cell in cells for word in cell.split("`") if word.startswith("tests/")]
    assert named or UNPREVENTED.match(cells[0]), threat
    assert all((ROOT / name).exists() for name in named)
