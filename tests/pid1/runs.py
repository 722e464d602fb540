"""A command under a subject, from outside: its lines, the processes of it, its signals and its end. Every wait has a deadline."""

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.pid1.subjects import Subject

PATIENCE = 30.0
PATIENCE_WITH_PEERS = 4.0
"""Seconds for what should happen at once, on a machine that may be busy. Others fail some checks by never doing it."""

_LOOK_SECONDS = 0.005
_MARK = "PID1_RUN"

BASE = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
_COVERAGE = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def python(program: str, *arguments: str) -> tuple[str, ...]:
    """The words that run a small program, without the imports that would make it slow."""
    return (sys.executable, "-I", "-S", "-c", program, *arguments)


def until(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Looks again and again: for what the kernel tells nobody about."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def best(measure: Callable[[], float], *, within: float) -> float:
    """The least of five, or of as many as it takes up to 20: a machine that does other things as well is slow by turns."""
    found = [measure() for _ in range(5)]
    while min(found) > within and len(found) < 20:
        found.append(measure())
    assert min(found) <= within, f"{min(found):.3f} s"
    return min(found)


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def state(pid: int) -> str:
    """The letter of proc_pid_stat(5), nothing when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


class Lines:
    """The lines of a descriptor that something else writes to."""

    def __init__(self, descriptor: int, patience: float) -> None:
        self._descriptor = descriptor
        self._patience = patience
        self._held = b""

    def next(self) -> str:
        """The next line, without its end; "" when there will be none. Fails when it does not come."""
        deadline = time.monotonic() + self._patience
        while b"\n" not in self._held:
            readable, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"no line came, only {self._held!r}"
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # a terminal that hung up
                data = b""
            if not data:
                last, self._held = self._held, b""
                return last.decode(errors="backslashreplace")
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        return line.decode(errors="backslashreplace").rstrip("\r")

    def expect(self, *wanted: str) -> None:
        for line in wanted:
            assert (found := self.next()) == line, f"expected {line!r}, got {found!r}"

    def rest(self) -> list[str]:
        """All that is still to come, until nobody writes any more."""
        lines = []
        while line := self.next():
            lines.append(line)
        return lines


class Run:
    """A command under a subject; nothing outlives the block. `patience`: for each of its lines, and for its end.

    `around` and `between` are words before and after those that make the place for the first process: they set up what it inherits.
    """

    def __init__(
        self,
        subject: Subject,
        words: Sequence[str | bytes],
        *,
        around: Sequence[str] = (),
        between: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Iterable[int] = (),
        is_measured: bool = False,
        cwd: str | Path | None = None,
        patience: float | None = None,
    ) -> None:
        self.subject = subject
        self.mark = uuid.uuid4().hex
        self._patience = patience or (PATIENCE if subject.is_ours else PATIENCE_WITH_PEERS)
        covered = _COVERAGE if subject.is_main and not is_measured and environment is None else {}
        self.environment = dict(BASE if environment is None else environment) | {_MARK: self.mark} | covered
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [*around, *subject.outside, *between, *subject.program, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            pass_fds=tuple(pass_fds),
            cwd=cwd,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout = self._process.stdout
        self.stderr = self._process.stderr
        self.lines = Lines(self.stdout.fileno(), self._patience)
        self.errors = Lines(self.stderr.fileno(), self._patience)
        self.root = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self.stdout.close()
        self.stderr.close()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    @property
    def stdin(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def target(self) -> int:
        """Who gets the signals that are for the first process."""
        return self._below(self.subject.target)

    @property
    def supervisor(self) -> int:
        """PID 1, as this machine counts."""
        return self._below(self.subject.supervisor)

    @property
    def command(self) -> int:
        """The command itself, which is the first process's only child as long as there are no orphans."""
        return self._below(self.subject.supervisor + 1)

    def signal(self, number: int) -> None:
        """To the first process."""
        os.kill(self.target, number)

    def wait(self) -> int:
        """The exit status. Fails when it does not end."""
        return self._process.wait(self._patience)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def left(self) -> list[int]:
        """Every process of this run that is there, wherever it went."""
        mark = f"{_MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def _below(self, generations: int) -> int:
        pid = self.root
        for _ in range(generations):
            assert until(partial(children, pid)), "the first process has no child"
            pid = children(pid)[0]
        return pid


def status(subject: Subject, words: Sequence[str | bytes], *, around: Sequence[str] = (), is_measured: bool = False) -> int:
    """The exit status of a command that ends by itself."""
    with Run(subject, words, around=around, is_measured=is_measured) as run:
        return run.wait()


def output(subject: Subject, words: Sequence[str | bytes], *, around: Sequence[str] = ()) -> list[str]:
    """The lines of a command that ends with 0."""
    with Run(subject, words, around=around) as run:
        lines = run.lines.rest()
        assert run.wait() == 0, run.errors.rest()
        return lines
