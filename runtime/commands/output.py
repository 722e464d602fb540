"""Where commands write: results to standard output, everything said to a person to standard error."""

import sys
from typing import TextIO


def write(text: str) -> None:
    """A result, on standard output, with the line ending that it lacks."""
    _to(sys.stdout, text)


def note(text: str) -> None:
    """A diagnostic or a sign of progress, on standard error."""
    _to(sys.stderr, text)


def fail(command: str, problem: str | OSError, status: int) -> int:
    """Says in one line why a command ends, and gives its exit status. An error of the system names the file that it is about."""
    note(f"enclave {command}: {problem if isinstance(problem, str) else told(problem)}")
    return status


def told(error: OSError) -> str:
    """An error of the system as people read it."""
    words = error.strerror or str(error)
    return f"{error.filename}: {words}" if error.filename else words


def _to(stream: TextIO, text: str) -> None:
    """What the stream's encoding cannot say (a file name that is no text, a terminal that knows only ASCII) is escaped."""
    encoding = stream.encoding or "utf-8"
    stream.write((text if text.endswith("\n") else text + "\n").encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
