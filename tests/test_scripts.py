"""What a fresh machine starts from: the scripts, and the lock file that they install."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    [
        "scripts/setup",
        "scripts/run",
        "scripts/test",
        "scripts/lock",
        "scripts/measure",
        "scripts/bench",
        "scripts/conformance",
        "scripts/debian-fetch",
        "scripts/kernel",
        "scripts/vm-setup",
        "scripts/build-image",
        ".ci/run",
    ],
)
def test_a_script_can_be_started_and_stops_at_its_first_error(name: str) -> None:
    script = ROOT / name
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/usr/bin/env bash\n#")
    assert "\nset -euo pipefail\n" in script.read_text()


def test_the_lock_file_names_no_index_and_every_package_has_its_hashes() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or "index" in line or "file:" in line]
    entries = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all(re.fullmatch(r"[a-z0-9-]+==[^ ]+( ; .+)? \\", line) for line in entries)
    hashed = [before for before, line in pairwise(lines) if not before.startswith(" ") and "--hash=sha256:" in line]
    assert hashed == entries


def test_every_dependency_is_locked() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["parent"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    assert {re.split(r"[>=\[]", requirement)[0] for requirement in wanted} <= locked
