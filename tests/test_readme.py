"""The commands of the top page do what it says, run the way a newcomer runs them."""

import shutil
import subprocess
from pathlib import Path

from tests.support.pages import console_blocks

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

PATIENCE = 300


def run(command: str) -> str:
    """What a command prints, which must succeed."""
    finished = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_the_page_has_the_commands_that_are_run_here() -> None:
    commands = [command for block in console_blocks(README) for command in block]
    assert commands == ["scripts/run --once", "scripts/test", ".venv/bin/enclave simulate my.toml"]


def test_the_first_command_runs_the_whole_path() -> None:
    printed = run("scripts/run --once")
    assert "Every step held." in printed
    assert "200 from the customer's program" in printed


def test_the_second_command_is_what_continuous_integration_runs() -> None:
    words = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert words == ["set -euo pipefail", 'exec "$(dirname "${BASH_SOURCE[0]}")/../scripts/test"']
    run("bash -n scripts/test")


def test_a_file_of_ones_own_is_simulated_with_the_third(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path, dirs_exist_ok=True)
    own = (tmp_path / "enclave.toml").rename(tmp_path / "my.toml")
    run("scripts/setup")
    printed = run(f".venv/bin/enclave simulate {own} --once --dir {tmp_path / 'state'}")
    assert "my.toml baked and registered" in printed
    assert "Every step held." in printed
