"""What the command inherits: words, environment and all else that a process has, to the byte."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.pid1.programs import REPORT
from tests.pid1.registry import check
from tests.pid1.runs import BASE, Run, output, python
from tests.pid1.subjects import Subject

CLEAN = {"SigPnd:": 0, "ShdPnd:": 0, "SigBlk:": 0, "SigIgn:": 0, "SigCgt:": 0}

BLOCK = """
import os, signal, sys
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])
"""


@check("all arguments arrive as they are")
def arguments(subject: Subject) -> None:
    words = [
        b"",
        b"two words",
        b"line\nline",
        b"\xc3\xa9\xe2\x82\xac",
        b"\xff\xfe\x80",
        b"--",
        b"-c",
        b"--only-process",
        b"$HOME `id` *",
    ]
    program = REPORT + "import sys\nsay([os.fsencode(word) for word in sys.argv[1:]])"
    with Run(subject, [*python(program), *words]) as run:
        run.lines.expect(repr(words))
        assert run.wait() == 0


@check("the environment arrives to the byte, and nothing is added")
def environment(subject: Subject) -> None:
    """With no locale in it, which makes some interpreters add one."""
    given = {"PATH": os.defpath, "EMPTY": "", "LINES": "a\nb", "EURO": "€", "BYTES": os.fsdecode(b"\xff\xfe"), "odd-name.1": "="}
    program = REPORT + "say(sorted(open('/proc/self/environ', 'rb').read().split(bytes(1))))"
    with Run(subject, python(program), environment=given) as run:
        entries = [name.encode() + b"=" + os.fsencode(value) for name, value in run.environment.items()]
        run.lines.expect(repr(sorted([*entries, b""])))
        assert run.wait() == 0


@check("the working directory is kept")
def working_directory(subject: Subject) -> None:
    with TemporaryDirectory() as folder, Run(subject, ["pwd", "-P"], cwd=folder) as run:
        run.lines.expect(os.path.realpath(folder))
        assert run.wait() == 0


@check("the umask is kept")
def umask(subject: Subject) -> None:
    for mask in ("0000", "0027", "0777"):
        assert output(subject, ["sh", "-c", "umask"], around=("sh", "-c", f'umask {mask}; exec "$@"', "sh")) == [mask]


@check("resource limits and niceness are kept")
def limits(subject: Subject) -> None:
    around = ("sh", "-c", 'ulimit -n 123; ulimit -c 0; exec nice -n 5 "$@"', "sh")
    nice = min(os.nice(0) + 5, 19)
    assert output(subject, ["sh", "-c", "ulimit -n; ulimit -c; nice"], around=around) == ["123", "0", str(nice)]


@check("a command without a slash is looked up in PATH, one with a slash is not")
def lookup(subject: Subject) -> None:
    with TemporaryDirectory() as folder:
        for place, said in (("first", "one"), ("second", "two")):
            tool = Path(folder) / place / "tool"
            tool.parent.mkdir()
            tool.write_text(f"#!/bin/sh\necho {said}\n")
            tool.chmod(0o755 if place == "second" else 0o644)
        path = f"{folder}/none:{folder}/first:{folder}/second:{BASE['PATH']}"
        for word, said in (("tool", "two"), ("./second/tool", "two"), ("second/tool", "two")):
            with Run(subject, [word], environment=BASE | {"PATH": path}, cwd=folder) as run:
                run.lines.expect(said)
                assert run.wait() == 0


@check("signals: default dispositions, none blocked, none pending")
def default_signals(subject: Subject) -> None:
    assert signals_of(subject) == CLEAN


@check("signals: the same where the first process was started with all blocked")
def blocked_signals(subject: Subject) -> None:
    assert signals_of(subject, around=python(BLOCK)) == CLEAN


def signals_of(subject: Subject, around: Sequence[str] = ()) -> dict[str, int]:
    """The sets of proc_pid_status(5), as a program finds them that handles no signal itself."""
    lines = (line.split() for line in output(subject, ["cat", "/proc/self/status"], around=around))
    return {words[0]: int(words[1], 16) for words in lines if words[0] in CLEAN}


@check("the command leads a process group of its own")
def own_group(subject: Subject) -> None:
    assert output(subject, python(REPORT + "say(os.getpgrp() == os.getpid())")) == ["True"]
