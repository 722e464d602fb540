"""What a shell with job control does for one job, as far as a first process can tell: a session, its terminal, one foreground group.

    python job_shell.py REPORT CONTROL WORDS…

Standard input is the terminal. It reports "job PID", "stopped" and "exit N" on the descriptor REPORT, and after "stopped" continues the
job in the foreground when a line comes from CONTROL.
"""

import fcntl
import os
import signal
import sys
import termios


def main() -> int:
    report, control, *words = sys.argv[1:]
    for descriptor in (int(report), int(control)):
        os.set_inheritable(descriptor, False)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    job = os.fork()
    if job == 0:
        _take_terminal(os.getpid())
        os.execvp(words[0], words)
    _say(report, f"job {job}")
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        _take_terminal(os.getpid())
        _say(report, "stopped")
        os.read(int(control), 1)
        _take_terminal(job)
        os.killpg(job, signal.SIGCONT)
    code = os.waitstatus_to_exitcode(status)
    _say(report, f"foreground {os.tcgetpgrp(0) == job}")
    _say(report, f"exit {code if code >= 0 else 128 - code}")
    return 0


def _take_terminal(group: int) -> None:
    """The caller's own group is made if need be. A group in the background may not do this unless it ignores TTOU."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    if group != os.getpgrp() and group == os.getpid():
        os.setpgid(0, 0)
    os.tcsetpgrp(0, group)
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def _say(report: str, text: str) -> None:
    os.write(int(report), text.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
