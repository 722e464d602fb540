"""The `enclave` command as a program: run to its end, or serving until it is told to stop. Time is real and waited for by reading."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.provisioner.store import Store
from runtime.simulator.layout import Layout

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
"""Seconds for what takes two on an idle machine."""
_UP = "Ctrl-C stops everything."


def enclave(*arguments: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Runs the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "runtime.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@dataclass(frozen=True, kw_only=True)
class Served:
    """A simulation that serves. `said` are its lines until it was up."""

    layout: Layout
    ready: dict[str, Any]
    said: list[str]
    process: "subprocess.Popen[str]"

    @property
    def is_isolated(self) -> bool:
        """Which of two things it said: whether this machine let it have namespaces of its own."""
        first = any("PID 1 of its own pid, mount, network, ipc and uts namespaces" in line for line in self.said)
        forbidden = any("a child subreaper in this machine's own namespaces, which forbids new ones" in line for line in self.said)
        assert first != forbidden
        return first

    def attest(self, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
        """(exit status, verdict) of `enclave attest URL --json`."""
        finished = enclave("attest", self.ready["url"], "--json", *arguments)
        verdict: dict[str, Any] = json.loads(finished.stdout)
        return finished.returncode, verdict

    def secrets(self, enclave_id: str) -> dict[str, bytes]:
        """What the provisioner keeps for an enclave."""
        store = Store(self.layout.provisioner / "store.db")
        try:
            record = store.record(enclave_id)
        finally:
            store.close()
        assert record is not None
        return {name: secret.value.reveal() for name, secret in record.secrets.items()}

    def interrupt(self) -> int:
        """Ctrl-C; gives the exit status."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        self.process.stdout.read()
        return self.process.wait(PATIENCE)


@contextmanager
def serving(config: Path, folder: Path, *arguments: str) -> Iterator[Served]:
    """`enclave simulate CONFIG --dir FOLDER`, once it says that it is up; ended when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli", "simulate", str(config), "--dir", str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if _UP in line:
                break
        else:
            raise AssertionError("".join(said))
        layout = Layout(folder.resolve())
        yield Served(layout=layout, ready=json.loads(layout.ready.read_text()), said=said, process=process)
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            process.stdout.read()
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def alone_on(path: Path) -> Iterator[None]:
    """One test at a time over all workers: the example's ports are the machine's own where there are no namespaces."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def processes_of(folder: Path) -> list[str]:
    """The command lines of every process that names the folder of a simulation."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if any(os.fsencode(folder) in word for word in words):
                found.append(b" ".join(words).decode())
    return found
