"""Where the judges come from, and their installation: Debian's packages when this is root, PyPI's into environments under .state/.

Nothing of it goes into the project's own environment, and nothing here is baked. README.md has the table.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".state" / "conformance"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
AUTOBAHN = "autobahntestsuite==25.10.1"
TLSFUZZER = "14555fe211456c46deccc4b2d94751dbd894aece"
"""The commit of tlsfuzzer/tlsfuzzer that the list of scripts was made for: no registry has it."""


class Missing(Exception):
    """A judge cannot be had here; the message says how to get it."""


def debian(program: str, package: str) -> str:
    """The path of a program of a Debian package, which is installed when this is root. Raises `Missing`."""
    if shutil.which(program) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        note(f"installing {package}")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", *command], env=environment, capture_output=True, check=False)
    found = shutil.which(program)
    if found is None:
        raise Missing(f"{program} is not installed (Debian: apt-get install {package})")
    return found


def python3() -> Path:
    """An interpreter that has what requirements.txt names, in an environment of its own. Raises `Missing`."""
    folder = STATE / "venv"
    stamp = folder / "stamp"
    wanted = REQUIREMENTS.read_text() + sys.version
    if not stamp.exists() or stamp.read_text() != wanted:
        note("installing from PyPI: " + ", ".join(line for line in REQUIREMENTS.read_text().splitlines() if line[:1].isalpha()))
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS)])
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def autobahn() -> list[str]:
    """The command of Autobahn's own test suite, which is written in Python 2.7 and runs there only. Raises `Missing`."""
    interpreter = _python2()
    folder = STATE / "autobahn"
    stamp = folder / "stamp"
    if not stamp.exists() or stamp.read_text() != AUTOBAHN:
        note(f"installing from PyPI, for Python 2.7: {AUTOBAHN}")
        shutil.rmtree(folder, ignore_errors=True)
        _run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder), AUTOBAHN])
        stamp.write_text(AUTOBAHN)
    start = f"import site; site.addsitedir({str(folder)!r}); from autobahntestsuite import wstest; wstest.run()"
    return [interpreter, "-W", "ignore", "-c", start]


def tlsfuzzer(given: Path | None) -> Path:
    """A checkout of tlsfuzzer: the one that was given, or one under .state/. Raises `Missing`."""
    folder = given or STATE / "tlsfuzzer"
    if not (folder / "tlsfuzzer" / "runner.py").exists():
        raise Missing(f"no checkout of tlsfuzzer/tlsfuzzer at {TLSFUZZER[:12]} in {folder}; --tlsfuzzer DIR names another")
    return folder


def note(text: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(f"conformance: {text}\n")
    sys.stderr.flush()


def _python2() -> str:
    found = [shutil.which("python2.7"), *map(str, sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7")))]
    for candidate in found:
        test = [candidate or "", "-c", "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"]
        if candidate is not None and subprocess.run(test, capture_output=True, check=False).returncode == 0:
            return candidate
    raise Missing("Autobahn's test suite needs Python 2.7 with pip (in the PATH, or one of pyenv's)")


def _run(command: Sequence[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise Missing(f"{' '.join(command[:5])} failed: {finished.stderr.strip()[-300:]}")
