"""On a terminal the command is the job: it has the foreground, and what is typed reaches it as if nobody stood between."""

import signal

from tests.pid1.programs import REPORT
from tests.pid1.registry import check
from tests.pid1.runs import python, state, until
from tests.pid1.subjects import Subject
from tests.pid1.terminals import INTERRUPT, QUIT, SUSPEND, TerminalRun

HEAR = (
    REPORT
    + """
import signal, sys
heard = {signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGHUP, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, heard)
say("ready")
while (number := signal.sigwait(heard)) != signal.SIGUSR1:
    say(signal.Signals(number).name)
    if number == signal.SIGWINCH:
        say(tuple(os.get_terminal_size(0)))
    if number == signal.SIGHUP:
        os._exit(6)
raise SystemExit(6)
"""
)

READ = REPORT + "say('ready')\nwhile line := os.read(0, 100):\n    say(line.decode().strip())\n"


def heard(subject: Subject, typed: bytes) -> list[str]:
    """What the command hears of a key. What comes after it is USR1, by the first process: a second time would come before that."""
    with TerminalRun(subject, python(HEAR)) as run:
        run.lines.expect("ready")
        run.type(typed)
        first = run.lines.next()
        run.signal(signal.SIGUSR1)
        lines = [first, *run.lines.rest()]
        assert [line for line in run.reports.rest() if line.startswith("exit")] == ["exit 6"]
        return lines


@check("terminal: the command has it, and the foreground of it")
def foreground(subject: Subject) -> None:
    program = REPORT + "say([os.isatty(0), os.tcgetpgrp(0) == os.getpgrp()])"
    with TerminalRun(subject, python(program)) as run:
        run.lines.expect("[True, True]")


@check("terminal: what is typed is read by the command")
def reads_the_terminal(subject: Subject) -> None:
    with TerminalRun(subject, python(READ)) as run:
        run.lines.expect("ready")
        run.type(b"hello\n")
        run.lines.expect("hello")
        run.type(b"\x04")
        assert "exit 0" in run.reports.rest()


@check("terminal: Ctrl-C reaches the command once")
def interrupt(subject: Subject) -> None:
    assert heard(subject, INTERRUPT) == ["SIGINT"]


@check("terminal: Ctrl-\\ reaches the command once")
def quit_key(subject: Subject) -> None:
    assert heard(subject, QUIT) == ["SIGQUIT"]


@check("terminal: a change of the window's size reaches the command")
def window_size(subject: Subject) -> None:
    with TerminalRun(subject, python(HEAR)) as run:
        run.lines.expect("ready")
        run.resize(33, 44)
        run.lines.expect("SIGWINCH", "(44, 33)")


@check("terminal: Ctrl-Z stops the command, and it can be continued")
def suspend(subject: Subject) -> None:
    """A shell that sees the job stop continues it with `fg`; where it sees nothing, CONT to the first process does."""
    with TerminalRun(subject, python(READ)) as run:
        run.lines.expect("ready")
        command = run.command
        run.type(SUSPEND)
        assert until(lambda: state(command) == "T", 2), f"the command is in state {state(command)}"
        if subject.is_ours and subject.target == 0:
            run.reports.expect("stopped")
            run.foreground()
        else:
            run.signal(signal.SIGCONT)
        assert until(lambda: state(command) == "S")
        run.type(b"again\n")
        run.lines.expect("again")
        run.type(b"\x04")
        assert "exit 0" in run.reports.rest()


@check("terminal: a hang-up reaches the command")
def hang_up(subject: Subject) -> None:
    with TerminalRun(subject, python(HEAR)) as run:
        run.lines.expect("ready")
        command = run.command
        run.hang_up()
        run.lines.expect("SIGHUP")
        assert until(lambda: not state(command))
