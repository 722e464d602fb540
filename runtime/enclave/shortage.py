"""What the machine may be short of: descriptors, memory, processes, threads. It passes, so PID 1 waits for it and never dies of it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.ENOBUFS})

PAUSE_LEAST = 0.1
PAUSE_MOST = 5.0
"""Seconds between two attempts."""


def shortage_of(error: OSError) -> str:
    """The name of what the machine is short of, such as "EMFILE"; empty for any other error."""
    return errno.errorcode[error.errno] if error.errno in SHORTAGES else ""


def pause_after(attempts: int) -> float:
    """Seconds to wait after so many attempts in a row, one or more."""
    return min(PAUSE_MOST, PAUSE_LEAST * 2.0 ** min(attempts - 1, 10))


@contextmanager
def thread_is_wanted() -> Iterator[None]:
    """For what needs a thread: that the machine has none to give is an OSError (EAGAIN, as of pthread_create(3)) and not Python's
    RuntimeError, which nobody expects of a call."""
    try:
        yield
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise OSError(errno.EAGAIN, "no thread can be started") from error
