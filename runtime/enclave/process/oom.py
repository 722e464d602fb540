"""Whom the kernel ends when memory ends: /proc/PID/oom_score_adj, proc(5). An application, never the supervisor.

The value is inherited, so everything that PID 1 starts sets its own; customer processes, which go first, do in isolation.py.
"""

from pathlib import Path

FIRST = -1000
"""PID 1: never."""
WORKER = -500
"""The fork server and with it its workers: after everything of the customer's."""

_OWN = Path("/proc/self/oom_score_adj")


def set_oom_score(score: int, path: Path = _OWN) -> bool:
    """Sets this process's own; False where the kernel does not let it, as it lets nobody without CAP_SYS_RESOURCE go down."""
    try:
        path.write_text(str(score))
    except OSError:
        return False
    return True
