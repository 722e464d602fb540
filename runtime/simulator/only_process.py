"""`enclave simulate --only-process`: one command under the enclave's supervisor as PID 1, without anything else of an enclave.

Two processes: the first one of new pid and mount namespaces, or a child subreaper where the machine forbids them; and in front of it a
launcher, this program, which stands for it in the shell: it passes signals, terminal and exit status on. Where this program is PID 1
already, in a container, there is no launcher. Little is imported before the command runs.
"""

import os
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.enclave.process.command import IN_BACKGROUND, IN_FOREGROUND, STOPPED, Command, has_terminal, start
from runtime.enclave.process.signals import CATCHABLE, NOT_FORWARDED, block_signals, open_signals, read_signals
from runtime.enclave.process.subreaper import become_subreaper
from runtime.simulator.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    die_with_parent,
    make_private,
    mount,
    unshare,
)

_STDIN = 0
_STANDARD = range(3)


def run_only_process(command: Command, *, stop_grace: float) -> int:
    """Runs the command to its end and gives its exit status, 128 + n for signal n."""
    _occupy_standard_descriptors()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some parents leave it, the kernel would keep no exit status
    block_signals()
    in_foreground = has_terminal()
    if os.getpid() == 1:
        return _supervise(command, stop_grace, in_foreground, None)
    ours, theirs = socket.socketpair()
    has_namespaces = _unshare()
    first = os.fork()
    if first == 0:
        ours.close()
        _become_first(has_namespaces=has_namespaces)
        with theirs:
            return _supervise(command, stop_grace, in_foreground, theirs)
    theirs.close()
    with ours:
        return _Launcher(first, ours, in_foreground).run()


def inherited_command(words: Sequence[str]) -> Command:
    """The command of `words`, with the environment that this program was started with, to the byte: Python itself may have added a
    locale to what it shows."""
    try:
        environment = [entry for entry in Path("/proc/self/environ").read_bytes().split(b"\0") if entry]
    except FileNotFoundError:
        environment = [name + b"=" + value for name, value in os.environb.items()]
    return Command(words=[os.fsencode(word) for word in words], environment=environment)


def _occupy_standard_descriptors() -> None:
    """Where one is closed nothing of ours may come to stand; the command finds it closed again."""
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, and not inherited


def _unshare() -> bool:
    """Whether what this process forks from now on is first in namespaces of its own."""
    try:
        unshare(CLONE_NEWPID | CLONE_NEWNS)
    except OSError:
        return False
    return True


def _become_first(*, has_namespaces: bool) -> None:
    os.setpgid(0, 0)  # what the shell and the terminal send to the launcher's group, the launcher alone passes on
    if has_namespaces:
        die_with_parent(signal.SIGKILL)
        with suppress(OSError):  # forbidden in some containers: processes are then seen as before
            make_private(Path("/"))
            mount("proc", Path("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    else:
        become_subreaper()


def _supervise(command: Command, stop_grace: float, in_foreground: bool, launcher: socket.socket | None) -> int:
    pid = start(command, takes_terminal=in_foreground)
    import trio  # while the command runs already

    from runtime.enclave.process.solo import supervise

    return trio.run(partial(supervise, pid, stop_grace=stop_grace, holds_terminal=in_foreground, launcher=launcher))


@dataclass(slots=True)
class _Launcher:
    """The supervisor's place in the shell. `in_foreground`: the shell gave us the terminal on standard input, and we hand it on."""

    first: int
    supervisor: socket.socket
    in_foreground: bool

    def run(self) -> int:
        """Passes everything on until the supervisor has ended, and gives its exit status."""
        signals = open_signals(CATCHABLE)
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        poll.register(self.supervisor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != signals:
                    if self._was_stopped():
                        self._stop()
                    else:
                        poll.unregister(self.supervisor)  # it is ending
                    continue
                for number in read_signals(signals):
                    if number != signal.SIGCHLD:
                        self._forward(number)
                    elif (status := self._ended()) is not None:
                        return status

    def _forward(self, number: int) -> None:
        if number == signal.SIGCONT:
            self.in_foreground = self.in_foreground or has_terminal()
            with suppress(OSError):  # it is ending
                self.supervisor.send(IN_FOREGROUND if has_terminal() else IN_BACKGROUND)
        elif number not in NOT_FORWARDED:
            os.kill(self.first, number)

    def _was_stopped(self) -> bool:
        with suppress(ConnectionResetError):
            return self.supervisor.recv(1) == STOPPED
        return False

    def _stop(self) -> None:
        """Stops as the command did, so that the shell sees it; comes back when we are continued, or at once where nobody could do that.

        The kernel does not stop the members of an orphaned process group (POSIX.1-2024, System Interfaces, 2.4.3).
        """
        self._take_terminal()
        self.in_foreground = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        if signal.SIGCONT not in signal.sigpending():
            os.kill(os.getpid(), signal.SIGCONT)

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self.first, os.WNOHANG)
        if pid == 0:
            return None
        if self.in_foreground:
            self._take_terminal()
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _take_terminal(self) -> None:
        with suppress(OSError):  # it hung up
            os.tcsetpgrp(_STDIN, os.getpgrp())
