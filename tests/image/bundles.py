"""The runtime bundle of this very code, made once and kept in .state until something that it is made of changes."""

import fcntl
import hashlib
import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
STATE = PROJECT / ".state" / "bundle"
INPUTS = STATE / "inputs"


def bundle() -> Path:
    """The folder of the bundle; the list beside it is `listed`. One of several test processes makes it, and the others wait."""
    STATE.mkdir(parents=True, exist_ok=True)
    stamp = STATE / "stamp"
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = _state()
        if not stamp.exists() or stamp.read_text() != state:
            stamp.unlink(missing_ok=True)
            make(STATE / "made")
            stamp.write_text(state)
    return STATE / "made"


def listed(folder: Path) -> Path:
    """The list of a bundle's files."""
    return folder.with_name(folder.name + ".cdx.json")


def make(out: Path, *, umask: int = 0o022, environment: dict[str, str] | None = None) -> str:
    """Runs the command; what it says on standard output."""
    made = subprocess.run(
        [PROJECT / ".venv/bin/enclave", "bundle", out, "--from", INPUTS],
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
        env=os.environ | (environment or {}),
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def _state() -> str:
    digest = hashlib.sha256()
    for path in sorted((PROJECT / "runtime").rglob("*")):
        if path.suffix in {".py", ".lock"}:
            digest.update(f"{path}\n".encode() + path.read_bytes())
    return digest.hexdigest()
