"""The end: of a command that does not want to, and of what it leaves behind."""

import os
import signal
import time

from tests.pid1.programs import REPORT
from tests.pid1.registry import check
from tests.pid1.runs import PATIENCE, Run, python, until
from tests.pid1.subjects import GRACE, Subject

STUBBORN = (
    REPORT
    + """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
say("ready")
while True:
    signal.sigwait({signal.SIGTERM})
    say("ignored")
"""
)


@check("a command that ignores TERM is killed after the grace", peers_miss=True)
def killed_after_the_grace(subject: Subject) -> str:
    """Waiting for the grace is the check."""
    with Run(subject, python(STUBBORN)) as run:
        run.lines.expect("ready")
        asked = time.monotonic()
        run.signal(signal.SIGTERM)
        run.lines.expect("ignored")
        patience = PATIENCE if subject.is_ours else 3 * GRACE
        assert until(lambda: run.ended, patience), f"it is still there after {patience:g} s"
        lasted = time.monotonic() - asked
        assert run.wait() == 128 + signal.SIGKILL
        assert lasted >= GRACE
        return f"{lasted:.2f} s"


LEAVE = (
    REPORT
    + """
import signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    say("left")
    signal.sigwait({signal.SIGTERM})
    say("asked")
    time.sleep(float(sys.argv[1]))
    say("tidied up")
    os._exit(0)
os.wait()
signal.sigwait({signal.SIGTERM})
os._exit(21)
"""
)
"""Leaves a daemon behind, which takes its time when it is asked to end."""


@check("what the command leaves behind is asked to end, and has the time to", peers_miss=True)
def left_behind_gets_term(subject: Subject) -> None:
    """The daemon's tidying up lasts, as that of a real one would."""
    with Run(subject, python(LEAVE, "0.3")) as run:
        run.lines.expect("left")
        run.signal(signal.SIGTERM)
        assert run.lines.rest() == ["asked", "tidied up"]
        assert run.wait() == 21


@check("nothing is there any more when the first process has ended")
def nothing_is_left(subject: Subject) -> None:
    """Neither a daemon that ignores TERM, nor one that is stopped, nor one with other children."""
    program = """
import signal
for kind in ("ignores", "stopped", "parent"):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind == "parent":
            os.fork()
        say(kind)
        if kind == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            signal.pause()
    os.wait()
os.read(0, 1)
os._exit(3)
"""
    read, write = os.pipe()
    try:
        with Run(subject, python(REPORT + program), stdin=read) as run:
            assert {run.lines.next() for _ in range(4)} == {"ignores", "stopped", "parent"}
            os.write(write, b"\n")
            assert run.wait() == 3
            assert until(lambda: not run.left(), 0.5), f"{len(run.left())} processes are left"
    finally:
        os.close(read)
        os.close(write)


@check("when what started it is killed, nothing stays behind")
def killed_from_outside(subject: Subject) -> None:
    with Run(subject, python(LEAVE, "0")) as run:
        run.lines.expect("left")
        os.kill(run.root, signal.SIGKILL)
        assert until(lambda: not [pid for pid in run.left() if pid != run.root]), f"{len(run.left())} processes are left"


@check("KILL to the command is an end like any other")
def killed_command(subject: Subject) -> None:
    with Run(subject, python(STUBBORN)) as run:
        run.lines.expect("ready")
        os.kill(run.command, signal.SIGKILL)
        assert run.wait() == 128 + signal.SIGKILL
