"""How the command ended is how the first process ends."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.pid1.programs import REPORT
from tests.pid1.registry import check
from tests.pid1.runs import BASE, Run, best, python, status
from tests.pid1.subjects import Subject

_SAMPLE = (0, 1, 2, 63, 126, 127, 128, 143, 255)
_AT_ONCE = 2

_DEADLY = sorted(
    {*range(1, signal.SIGSYS + 1), signal.SIGRTMIN, signal.SIGRTMAX}
    - {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    - {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
)
"""Signals whose default action ends a process, of the real-time ones the first and the last."""


WARM = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from runtime.cli import main
import runtime.commands.simulate, runtime.enclave.process.solo, runtime.simulator.only_process
for code in range(256):
    pid = os.fork()
    if pid == 0:
        os._exit(main(["simulate", "--only-process", "--", "sh", "-c", f"exit {code}"]))
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Ours 256 times, without the fifth of a second that the interpreter takes to load it."""


@check("every exit code, 0 to 255, is the command's")
def every_exit_code(subject: Subject) -> None:
    """Ours is started anew for a sample, and for all of them from an interpreter that has loaded it already."""
    codes = _SAMPLE if subject.is_ours else range(256)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        assert list(threads.map(lambda code: status(subject, ["sh", "-c", f"exit {code}"], is_measured=True), codes)) == list(codes)
    if subject.is_main:
        words = [sys.executable, "-I", "-S", "-c", WARM, os.pathsep.join(sys.path)]
        finished = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=BASE)
        assert (finished.stdout.split(), finished.stderr) == ([str(code) for code in range(256)], "")


@check("death by signal n is 128 + n")
def death_by_signal(subject: Subject) -> None:
    deadly = _DEADLY if subject.is_thorough else _DEADLY[::8]

    def run(number: int) -> int:
        return status(subject, ["sh", "-c", f"ulimit -c 0; kill -{number:d} $$"], is_measured=True)

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as threads:
        assert list(threads.map(run, deadly)) == [128 + number for number in deadly]


@check("a command that is not found: 127, one line")
def not_found(subject: Subject) -> None:
    for word in ("no-such-command", "/no/such/command", "./no-such-command"):
        with Run(subject, [word]) as run:
            assert run.wait() == 127
            lines = run.errors.rest()
            assert len(lines) == 1
            assert word in lines[0]


@check("a command that is not executable: 126, one line")
def not_executable(subject: Subject) -> None:
    with TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        plain.write_text("#!/bin/sh\n")
        plain.chmod(0o644)
        with Run(subject, [str(plain)]) as run:
            assert run.wait() == 126
            lines = run.errors.rest()
            assert len(lines) == 1
            assert str(plain) in lines[0]


@check("it ends within 500 ms of the command")
def ends_at_once(subject: Subject) -> str:
    """100 ms are promised, and a busy machine is given more. The command lasts a second: ours has been loaded by then."""

    def measure() -> float:
        with Run(
            subject, python(REPORT + "import time; time.sleep(1); say(time.monotonic()); os._exit(0)"), is_measured=True
        ) as run:
            ended = float(run.lines.next())
            assert run.wait() == 0
            return time.monotonic() - ended

    return f"{best(measure, within=0.5) * 1000:.0f} ms"
