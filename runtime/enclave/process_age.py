"""How long ago the kernel started this process, so that what the interpreter and the imports take is not forgotten."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/self/stat")
_STARTED = 22 - 3  # field 22, starttime in ticks after boot (proc(5)); the split begins behind field 2, which may hold anything


def process_age() -> float:
    """Seconds, to a hundredth; 0 where /proc does not tell. Of the kernel's own first process: since the kernel started."""
    try:
        fields = _STAT.read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    started = int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
