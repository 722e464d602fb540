"""What only ours promises of `enclave simulate --only-process`: a shell's job control, settings of a file, odd parents."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.enclave.test_config import PROVISIONER
from tests.pid1.check_signals import listening
from tests.pid1.check_terminal import READ
from tests.pid1.programs import REPORT
from tests.pid1.runs import BASE, PATIENCE, Run, python, state, until
from tests.pid1.subjects import SUBJECTS, Subject, why_not
from tests.pid1.terminals import SUSPEND, TerminalRun

OURS = next(subject for subject in SUBJECTS if subject.is_main)
ENCLAVE = OURS.program[0]
IS_ROOT = os.geteuid() == 0

IGNORE = """
import os, signal, sys
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
"""
CONFIG = """
version = 1
[enclave]
id = "e"
[[process]]
name = "app"
user = "1234:2345"
workdir = "/usr"
umask = "0077"
stop_grace = "300ms"
env = { COLOUR = "green", PATH = "/usr/bin:/bin" }
[[process]]
name = "other"
user = "1:1"
"""


def only_process(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENCLAVE, "simulate", "--only-process", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=BASE,
        timeout=PATIENCE,
    )


def test_a_shell_sees_the_job_stop_and_gives_it_the_terminal_back_twice() -> None:
    with TerminalRun(OURS, python(READ)) as run:
        run.lines.expect("ready")
        command = run.command
        for word in ("once", "twice"):
            run.type(SUSPEND)
            run.reports.expect("stopped")
            assert state(command) == "T"
            run.foreground()
            run.type(word.encode() + b"\n")
            run.lines.expect(word)
        run.type(b"\x04")
        run.reports.expect("foreground True", "exit 0")


TIDY_UP = (
    REPORT
    + """
import signal, time
asked = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, asked)
say("ready")
signal.sigwait(asked)
time.sleep(0.2)
raise SystemExit(4)
"""
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_tidies_up_when_it_is_asked_to_end_is_not_killed(number: signal.Signals) -> None:
    with Run(OURS, python(TIDY_UP)) as run:
        run.lines.expect("ready")
        run.signal(number)
        assert run.wait() == 4


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_that_may_mean_anything_does_not_begin_the_grace(number: signal.Signals) -> None:
    """Waiting longer than the grace is the check."""
    with listening(OURS, [number], 8) as run:
        run.lines.expect("ready")
        run.signal(number)
        run.lines.expect(str(int(number)))
        assert not until(lambda: run.ended, 1.5)
        run.signal(signal.SIGTERM)
        assert run.wait() == 8


@pytest.mark.parametrize("subject", [each for each in SUBJECTS if each.is_ours and not why_not(each)], ids=lambda each: each.name)
def test_a_parent_that_ignores_every_signal_changes_nothing(subject: Subject) -> None:
    with Run(subject, ["sh", "-c", "grep SigIgn /proc/self/status; exit 9"], around=python(IGNORE)) as run:
        assert run.lines.next().split() == ["SigIgn:", "0" * 16]
        assert run.wait() == 9


def test_no_locale_is_added_where_there_is_none() -> None:
    with Run(OURS, ["env"], environment={"PATH": os.defpath}) as run:
        assert {line.partition("=")[0] for line in run.lines.rest()} == {"PATH", "PID1_RUN"}
        assert run.wait() == 0


def test_processes_are_in_a_namespace_of_their_own_where_the_machine_gives_one() -> None:
    program = REPORT + "say([os.getppid(), sorted(int(name) for name in os.listdir('/proc') if name.isdecimal())] == [1, [1, 2]])"
    with Run(OURS, python(program)) as run:
        run.lines.expect(str(IS_ROOT))
        assert run.wait() == 0


def test_the_settings_of_the_first_process_in_a_file_apply(tmp_path: Path) -> None:
    config = tmp_path / "enclave.toml"
    config.write_text(CONFIG + PROVISIONER)
    script = "id -u; id -g; pwd; umask; echo $COLOUR; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status"
    finished = only_process("-c", str(config), "--", "sh", "-c", script)
    user = ["1234", "2345"] if IS_ROOT else [str(os.geteuid()), str(os.getegid())]
    assert finished.stdout.split() == [*user, "/usr", "0077", "green", "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_grace_is_that_of_the_file_unless_another_is_given(tmp_path: Path) -> None:
    config = tmp_path / "enclave.toml"
    config.write_text(CONFIG + PROVISIONER)
    stubborn = ("sh", "-c", "trap '' TERM; echo ready; exec sleep 1000")
    given = OURS.program[: OURS.program.index("--stop-grace")]
    for words, is_killed in ((("-c", str(config)), True), (("-c", str(config), "--stop-grace", "1h"), False)):
        with Run(replace(OURS, program=(*given, *words, "--")), stubborn) as run:
            run.lines.expect("ready")
            run.signal(signal.SIGTERM)
            assert until(lambda: run.ended, PATIENCE if is_killed else 1.0) is is_killed


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        ((), 2, "needs a command"),
        (("--stop-grace", "20", "--", "true"), 2, "must be a duration"),
        (("-c", "no-such.toml", "--", "true"), 1, "no-such.toml: No such file"),
        (("--", ""), 127, "No such file"),
        (("--", "/"), 126, "Permission denied"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line_and_in_the_status(words: tuple[str, ...], status: int, complaint: str) -> None:
    finished = only_process(*words)
    assert finished.returncode == status
    assert complaint in finished.stderr
    assert "Traceback" not in finished.stderr


def test_settings_of_one_process_are_refused_where_the_whole_system_is_run() -> None:
    finished = subprocess.run([ENCLAVE, "simulate", "-c", "a.toml"], capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "--only-process" in finished.stderr
