"""Orphans are reaped, whoever left them, and the command's own status is not mistaken for one of theirs."""

import signal

from tests.pid1.programs import REPORT, STORM
from tests.pid1.registry import check
from tests.pid1.runs import PATIENCE, Run, children, output, python, state, until
from tests.pid1.subjects import Subject

WAIT_FOR_TERM = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
"""
THEN_END = """
say("done")
signal.sigwait({signal.SIGTERM})
raise SystemExit(33)
"""


def leaves_no_zombie(subject: Subject, program: str, *arguments: str) -> None:
    """The program says "done" while it still runs: by then, or soon, its orphans are gone; it ends with a status of its own."""
    with Run(subject, python(REPORT + WAIT_FOR_TERM + program + THEN_END, *arguments), patience=PATIENCE) as run:
        run.lines.expect("done")
        assert until(lambda: len(children(run.supervisor)) == 1), f"{len(children(run.supervisor))} children are left"
        run.signal(signal.SIGTERM)
        assert run.wait() == 33


@check("10 000 orphans are reaped")
def many_orphans(subject: Subject) -> None:
    leaves_no_zombie(subject, STORM, "100", "100")


@check("a daemon (double fork) becomes the first process's child")
def double_fork(subject: Subject) -> None:
    program = """
import time
first, (read, write), (go, gone) = os.getppid(), os.pipe(), os.pipe()
between = os.fork()
if between == 0:
    if os.fork():
        os._exit(0)
    os.close(gone)
    os.read(go, 1)
    os.write(write, b"%d" % os.getppid())
    os._exit(0)
os.waitpid(between, 0)
os.close(gone)
say(int(os.read(read, 20)) == first)
"""
    assert output(subject, python(REPORT + program)) == ["True"]


@check("orphans of orphans, 50 deep, are reaped")
def nested_orphans(subject: Subject) -> None:
    program = """
read, write = os.pipe()
if os.fork() == 0:
    os.close(read)
    for _ in range(50):
        if os.fork():
            os._exit(0)
    os._exit(0)
os.close(write)
os.read(read, 1)
os.wait()
"""
    leaves_no_zombie(subject, program)


@check("an orphan that ends before the command is reaped")
def orphan_before(subject: Subject) -> None:
    leaves_no_zombie(subject, STORM, "1", "1")


@check("the command's status is its own when orphans end at the same moment")
def status_in_a_storm(subject: Subject) -> None:
    """Orphans that end with 7 are still being reaped when the command ends with 33, or by a signal."""
    for end, wanted in (("os._exit(33)", 33), ("os.kill(os.getpid(), 9)", 137)):
        with Run(subject, python(REPORT + STORM + end, "20", "50"), patience=PATIENCE) as run:
            assert run.wait() == wanted


@check("orphans that go on ending do not keep the command's end from being seen")
def end_among_orphans(subject: Subject) -> None:
    program = """
if os.fork() == 0:
    while True:
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(7)
            os._exit(0)
        os.wait()
say("storm")
os._exit(44)
"""
    with Run(subject, python(REPORT + program)) as run:
        run.lines.expect("storm")
        assert run.wait() == 44


@check("a child that the command does not wait for is no business of the first process")
def children_of_the_command(subject: Subject) -> None:
    """It stays a zombie of the command's, which can still ask for its status."""
    program = (
        WAIT_FOR_TERM
        + """
child = os.fork()
if child == 0:
    os._exit(9)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
say("zombie")
signal.sigwait({signal.SIGTERM})
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    with Run(subject, python(REPORT + program)) as run:
        run.lines.expect("zombie")
        assert [state(pid) for pid in children(run.command)] == ["Z"]
        run.signal(signal.SIGTERM)
        assert run.wait() == 9
