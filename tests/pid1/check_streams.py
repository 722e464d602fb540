"""Standard input, output and error are the command's own."""

import hashlib
import os
import subprocess
import threading

from tests.pid1.programs import REPORT
from tests.pid1.registry import check
from tests.pid1.runs import Run, output, python
from tests.pid1.subjects import Subject

_CHUNK = 1 << 20
_CLOSING = ("sh", "-c", 'exec "$@" {}', "sh")
"""Words that start the subject with a descriptor closed."""

FSTAT = """
import os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
"""


@check("100 MB on standard output arrive through a pipe")
def much_output(subject: Subject) -> None:
    program = """
import hashlib, os
digest = hashlib.sha256()
for number in range(100):
    chunk = os.urandom(1000) * 1000
    digest.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[os.write(1, view):]
os.write(2, digest.hexdigest().encode())
"""
    digest, size = hashlib.sha256(), 0
    with Run(subject, python(program)) as run:
        while data := os.read(run.stdout.fileno(), _CHUNK):
            digest.update(data)
            size += len(data)
        assert run.wait() == 0
        assert size == 100_000_000
        assert run.errors.rest() == [digest.hexdigest()]


@check("standard error is apart from standard output, and nothing is added to either")
def standard_error(subject: Subject) -> None:
    with Run(subject, ["sh", "-c", "echo out; echo err >&2"]) as run:
        assert run.wait() == 0
        assert (run.lines.rest(), run.errors.rest()) == (["out"], ["err"])


@check("standard input reaches the command, to its end")
def standard_input(subject: Subject) -> None:
    sent = os.urandom(_CHUNK)
    with Run(subject, ["sha256sum"], stdin=subprocess.PIPE) as run:
        writer = threading.Thread(target=_write_all, args=(run, sent))
        writer.start()
        run.lines.expect(f"{hashlib.sha256(sent).hexdigest()}  -")
        writer.join()
        assert run.wait() == 0


def _write_all(run: Run, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(run.stdin, view) :]
    run.close_stdin()


@check("a closed standard input is closed for the command")
def closed_input(subject: Subject) -> None:
    program = REPORT + FSTAT + "say([is_open(number) for number in range(3)])"
    assert output(subject, python(program), around=_closing("<&-")) == ["[False, True, True]"]


@check("closed standard output and error are closed for the command")
def closed_output(subject: Subject) -> None:
    program = FSTAT + "raise SystemExit(sum(is_open(number) << number for number in range(3)))"
    for words, seen in ((">&-", 0b101), (">&- 2>&-", 0b001), ("<&- >&- 2>&-", 0)):
        with Run(subject, python(program), around=_closing(words)) as run:
            assert run.wait() == seen, words


def _closing(redirections: str) -> tuple[str, ...]:
    return tuple(word.format(redirections) for word in _CLOSING)


@check("no descriptor above 2 in the command")
def no_more_descriptors(subject: Subject) -> None:
    """The one that lists the folder is the listing's own."""
    program = REPORT + "say(sorted(map(int, os.listdir('/proc/self/fd'))))"
    with Run(subject, python(program), is_measured=True) as run:
        run.lines.expect("[0, 1, 2, 3]")
        assert run.wait() == 0


@check("a command whose reader goes away dies of SIGPIPE")
def broken_pipe(subject: Subject) -> None:
    with Run(subject, ["yes"]) as run:
        run.lines.expect("y")
        run.stdout.close()
        assert run.wait() == 141
