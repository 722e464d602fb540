"""Signals as PID 1 takes them: blocked from the first moment and read from a descriptor (signalfd(2)).

So none is lost before anybody listens, real-time signals keep their number, and none can interrupt or end the one who reads.
"""

import ctypes
import os
import signal
from collections.abc import Iterable

CATCHABLE = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
NOT_FORWARDED = frozenset({signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU})
"""These are about the children and the terminal of the one who gets them; every other one is for the command."""

_SET_SIZE = 128  # sizeof(sigset_t), for glibc and for musl
_RECORD_SIZE = 128  # sizeof(struct signalfd_siginfo), which begins with the number in 32 bits
_RECORDS = 64
_SIG_DFL = None

_libc = ctypes.CDLL(None, use_errno=True)


def block_signals() -> None:
    """Keeps every signal that can be caught waiting, in this process and in what it forks."""
    signal.pthread_sigmask(signal.SIG_SETMASK, CATCHABLE)


def reset_signals() -> None:
    """For a forked child before exec: default dispositions, nothing blocked. Only makes system calls."""
    for number in CATCHABLE:
        _libc.signal(number, _SIG_DFL)  # signal.signal wants the main thread, and the fork may come from another
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def open_signals(numbers: Iterable[int]) -> int:
    """A descriptor that is readable while one of these blocked signals waits; the caller closes it. Raises OSError."""
    wanted = sum(1 << (number - 1) for number in numbers)
    descriptor: int = _libc.signalfd(-1, wanted.to_bytes(_SET_SIZE, "little"), os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "signalfd")
    return descriptor


def read_signals(descriptor: int) -> list[int]:
    """The signals that wait, in the kernel's order: each standard one once, real-time ones as often as they were sent."""
    try:
        records = os.read(descriptor, _RECORDS * _RECORD_SIZE)
    except BlockingIOError:
        return []
    return [int.from_bytes(records[start : start + 4], "little") for start in range(0, len(records), _RECORD_SIZE)]
