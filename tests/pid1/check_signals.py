"""Signals that the first process gets are the command's."""

import os
import signal

from tests.pid1.programs import FAMILY, LISTEN, REPORT
from tests.pid1.registry import check
from tests.pid1.runs import Run, python, state, until
from tests.pid1.subjects import Subject

STANDARD = [
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGSTKFLT,
    signal.SIGTSTP, signal.SIGURG, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGVTALRM, signal.SIGPROF, signal.SIGWINCH, signal.SIGIO,
    signal.SIGPWR, signal.SIGCONT,
]  # fmt: skip
FAULTS = [signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS]
REAL_TIME = [*range(signal.SIGRTMIN, signal.SIGRTMAX + 1)]


def listening(subject: Subject, heard: list[signal.Signals] | list[int], code: int = 0) -> Run:
    """A command that says what it hears, TERM included."""
    numbers = ",".join(str(int(number)) for number in [*heard, signal.SIGTERM])
    return Run(subject, python(LISTEN, numbers, str(code)))


def hear(subject: Subject, numbers: list[signal.Signals] | list[int]) -> None:
    """Each of them in turn, and then TERM, which ends it with a status of its own."""
    with listening(subject, numbers, 29) as run:
        run.lines.expect("ready")
        for number in [*numbers, signal.SIGTERM]:
            run.signal(number)
            run.lines.expect(str(int(number)))
        assert run.wait() == 29


@check("18 signals and TERM reach the command")
def standard_signals(subject: Subject) -> None:
    hear(subject, STANDARD)


@check("every real-time signal reaches the command")
def real_time_signals(subject: Subject) -> None:
    hear(subject, REAL_TIME)


@check("signals of faults, sent by hand, reach the command")
def fault_signals(subject: Subject) -> None:
    hear(subject, FAULTS)


@check("a real-time signal sent five times is heard five times")
def queued_signals(subject: Subject) -> None:
    with listening(subject, [signal.SIGRTMIN]) as run:
        run.lines.expect("ready")
        for _ in range(5):
            run.signal(signal.SIGRTMIN)
        run.lines.expect(*[str(int(signal.SIGRTMIN))] * 5)
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


@check("a signal goes to the command's whole group")
def whole_group(subject: Subject) -> None:
    with Run(subject, python(FAMILY)) as run:
        assert {run.lines.next(), run.lines.next()} == {"child is ready", "grandchild is ready"}
        run.signal(signal.SIGUSR1)
        assert {run.lines.next(), run.lines.next()} == {"child heard it", "grandchild heard it"}
        assert run.wait() == 0


@check("TTIN and TTOU do not stop the first process")
def terminal_signals(subject: Subject) -> None:
    with listening(subject, [signal.SIGUSR1]) as run:
        run.lines.expect("ready")
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            run.signal(number)
        run.signal(signal.SIGUSR1)
        run.lines.expect(str(int(signal.SIGUSR1)))
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


def stopped_and_continued(subject: Subject, *, from_outside: bool) -> None:
    with listening(subject, [signal.SIGUSR1], 5) as run:
        run.lines.expect("ready")
        command = run.command
        os.kill(command, signal.SIGSTOP)
        assert until(lambda: state(command) == "T")
        os.kill(run.target if from_outside else command, signal.SIGCONT)
        assert until(lambda: state(command) == "S")
        run.signal(signal.SIGUSR1)
        run.lines.expect(str(int(signal.SIGUSR1)))
        run.signal(signal.SIGTERM)
        assert run.wait() == 5


@check("a command that is stopped has not ended")
def stop_and_continue(subject: Subject) -> None:
    stopped_and_continued(subject, from_outside=False)


@check("CONT to the first process continues a stopped command")
def continue_from_outside(subject: Subject) -> None:
    stopped_and_continued(subject, from_outside=True)


SURVIVE = (
    REPORT
    + """
import signal
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
first = os.getppid()
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    os.kill(first, number)
say("sent")
raise SystemExit(12)
"""
)


@check("no signal from inside ends or stops the first process")
def signals_from_inside(subject: Subject) -> None:
    """All but KILL and STOP, which for a child subreaper mean what they say."""
    with Run(subject, python(SURVIVE)) as run:
        run.lines.expect("sent")
        assert run.wait() == 12
