"""A program put in the place of a forked child with nothing of ours left in it: its own process group, default signals, no descriptors.

It takes words and environment byte for byte, and imports little, so that a first process can start its command before it has loaded
what it needs to look after it.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from runtime.enclave.process.signals import reset_signals

NOT_EXECUTABLE = 126
NOT_FOUND = 127
"""Exit statuses of a command that cannot be run, as a shell has them (POSIX.1-2024, Shell Command Language, 2.8.2)."""

STOPPED = b"s"
IN_FOREGROUND, IN_BACKGROUND = b"f", b"b"
"""What a supervisor and the launcher that stands for it in a shell say to each other: the command was stopped while it had the
terminal; it may continue, with the terminal or without."""

_STDIN, _STDERR = 0, 2
_MISSING = (errno.ENOENT, errno.ENOTDIR)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`words` are its name, looked up in the PATH of `environment` when it has no slash, and its arguments.

    `environment` holds "NAME=value" entries, as execve(2) takes them. `restrict` runs in the child: it raises OSError or ValueError, or
    what it takes away is gone.
    """

    words: Sequence[bytes]
    environment: Sequence[bytes]
    restrict: Callable[[], None] = lambda: None


def start(command: Command, *, takes_terminal: bool) -> int:
    """Forks and executes; gives the process id, which is its group's as well. Signals have to be blocked when this is called.

    What cannot be run says why in one line on standard error and ends with `NOT_FOUND` or `NOT_EXECUTABLE`. `takes_terminal`: its
    group becomes the foreground of the terminal on standard input.
    """
    places = _places(command)
    words, environment = _array(command.words), _array(command.environment)
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            if takes_terminal:
                with suppress(OSError):  # it hung up
                    os.tcsetpgrp(_STDIN, os.getpid())
            os.closerange(_STDERR + 1, os.sysconf("SC_OPEN_MAX"))
            command.restrict()
            reset_signals()
            os._exit(_execute(places, words, environment))
        except (OSError, ValueError) as error:
            _complain(command.words[0], str(error))
        finally:
            os._exit(NOT_EXECUTABLE)
    with suppress(OSError):  # the child has done it itself, and may even have ended
        os.setpgid(pid, pid)
    return pid


def has_terminal() -> bool:
    """Whether standard input is the terminal of this process's session, and its group in the foreground of it."""
    try:
        return os.tcgetpgrp(_STDIN) == os.getpgrp()
    except OSError:
        return False


def _execute(places: Sequence[bytes], words: "ctypes.Array[ctypes.c_char_p]", environment: "ctypes.Array[ctypes.c_char_p]") -> int:
    """Tries each place, and comes back only when none can be executed: with an exit status, the reason having been said."""
    failure = errno.ENOENT
    for place in places:
        _libc.execve(place, words, environment)
        number = ctypes.get_errno()
        if number not in _MISSING:
            failure = number
            if number != errno.EACCES:  # execvp(3): what may not be executed could still be found further down
                break
    _complain(words[0] or b"", os.strerror(failure))
    return NOT_FOUND if failure in _MISSING else NOT_EXECUTABLE


def _places(command: Command) -> list[bytes]:
    name = command.words[0]
    if b"/" in name or not name:
        return [name]
    path = next((entry[5:] for entry in command.environment if entry.startswith(b"PATH=")), os.fsencode(os.defpath))
    return [folder + b"/" + name if folder else name for folder in path.split(b":")]  # an empty one is the working directory


def _complain(name: bytes, reason: str) -> None:
    os.write(_STDERR, b"enclave: " + name + b": " + reason.encode() + b"\n")


def _array(entries: Sequence[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * (len(entries) + 1))(*entries, None)
