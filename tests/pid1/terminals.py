"""A command under a subject on a terminal of its own, started by a shell with job control (job_shell.py)."""

import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.pid1.runs import PATIENCE, Lines, Run, python
from tests.pid1.subjects import Subject

_SHELL = Path(__file__).with_name("job_shell.py")

_IN_FRONT = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpid())
for number in (signal.SIGTTOU, signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""What makes the namespaces is no part of the job: a key that ends it would end them."""

INTERRUPT, QUIT, SUSPEND = b"\x03", b"\x1c", b"\x1a"
"""Ctrl-C, Ctrl-backslash, Ctrl-Z."""


class TerminalRun(Run):
    """Standard input is the terminal; standard output is a pipe, so that what the terminal echoes does not get between the lines."""

    def __init__(self, subject: Subject, words: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        reports, report = os.pipe()
        control, self._control = os.pipe()
        try:
            super().__init__(
                subject,
                words,
                around=[sys.executable, "-I", "-S", str(_SHELL), str(report), str(control)],
                between=python(_IN_FRONT) if subject.target else (),
                stdin=slave,
                pass_fds=[report, control],
            )
        finally:
            for descriptor in (slave, report, control):
                os.close(descriptor)
        self._reports = reports
        self.reports = Lines(reports, PATIENCE)
        self.root = int(self.reports.next().removeprefix("job "))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        for descriptor in (self._master, self._control, self._reports):
            if descriptor >= 0:
                os.close(descriptor)

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def hang_up(self) -> None:
        os.close(self._master)
        self._master = -1

    def foreground(self) -> None:
        """What `fg` does to a job that was stopped."""
        os.write(self._control, b"\n")
