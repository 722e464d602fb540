"""The clock that every process of the machine reads, CLOCK_REALTIME, as timekeeping needs it: read, step, slew.

The machine supplies it (runtime/enclave/platform.py), so that a machine whose clock belongs to somebody else supplies another.
"""

import ctypes
import os
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from runtime.net.clock import unix_now

ADJ_OFFSET_SINGLESHOT = 0x8001
"""adjtimex(2): an old-fashioned adjtime(), by which the clock runs at most 500 ppm faster or slower until the offset is gone."""


class SystemClock(Protocol):
    """A machine's clock, in seconds since 1970 UTC."""

    @property
    def is_ours(self) -> bool:
        """Whether `step` and `slew` move what other processes read."""

    def read(self) -> float:
        """What it shows."""

    def step(self, seconds: float) -> None:
        """Puts it forward by `seconds` at once, back if they are negative. Raises OSError."""

    def slew(self, seconds: float) -> None:
        """Gains, or loses, `seconds` little by little, and what an earlier call left to do no more. Raises OSError."""


class Timex(ctypes.Structure):
    """`struct timex` of Linux include/uapi/linux/timex.h on 64-bit machines, up to its reserved words."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("pps", ctypes.c_long * 2),
        ("shift", ctypes.c_int),
        ("pps_counts", ctypes.c_long * 5),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


Adjust: TypeAlias = Callable[[Timex], None]
"""clock_adjtime(2) of CLOCK_REALTIME; raises OSError."""

_libc = ctypes.CDLL(None, use_errno=True)


def clock_adjtime(request: Timex) -> None:
    """The system call itself."""
    if _libc.clock_adjtime(time.CLOCK_REALTIME, ctypes.byref(request)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "clock_adjtime")


class KernelClock:
    """The kernel's clock. `adjust` and `set_ns` are the system calls themselves, which a test puts a kernel of its own under."""

    is_ours = True

    def __init__(
        self,
        *,
        read: Callable[[], float] = unix_now,
        adjust: Adjust = clock_adjtime,
        set_ns: Callable[[int, int], object] = time.clock_settime_ns,
    ) -> None:
        self.read = read
        self._adjust = adjust
        self._set_ns = set_ns

    def step(self, seconds: float) -> None:
        """See `SystemClock`. Needs CAP_SYS_TIME."""
        self._set_ns(time.CLOCK_REALTIME, round((self.read() + seconds) * 1e9))

    def slew(self, seconds: float) -> None:
        """See `SystemClock`. Needs CAP_SYS_TIME."""
        self._adjust(Timex(modes=ADJ_OFFSET_SINGLESHOT, offset=round(seconds * 1e6)))
