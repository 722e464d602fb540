"""One command and nothing else under this supervisor: signals, terminal and exit status are the command's.

The same reaper, the same forwarding of signals and the same care for what is left behind as in an enclave, without boot, secrets and
traffic: so all of it can be judged from outside, beside other first processes.
"""

import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from runtime.enclave.process.command import IN_FOREGROUND, STOPPED
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.signals import CATCHABLE, NOT_FORWARDED, open_signals, read_signals

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
"""Not SIGHUP and SIGQUIT: they make many a server read its settings anew, or print its threads, and go on."""

_STDIN = 0


async def supervise(pid: int, *, stop_grace: float, holds_terminal: bool, launcher: socket.socket | None = None) -> int:
    """Looks after the child `pid`, its group's leader, and after what it leaves behind; gives its exit status, 128 + n for signal n.

    Every signal that can be caught goes to its group, but for `NOT_FORWARDED`; they have to be blocked since before it was started.
    `stop_grace` seconds after one that asks for the end the group is killed; as long has what is left behind. `holds_terminal`: the
    group has the terminal on standard input. `launcher` is who waits for us under a shell: once it is gone, all is killed.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # the reaper listens to it in its own way
    command = _Running(pid, stop_grace, holds_terminal, launcher)
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        async with reaper.owning(command.itself), trio.open_nursery() as living:
            nursery.start_soon(reaper.run, command.look_for_stop)
            nursery.start_soon(command.follow_launcher)
            living.start_soon(command.forward_signals, living)
            status = await command.wait()
            living.cancel_scope.cancel()
        with command.patience:
            await reaper.end_others(stop_grace)
        if command.patience.cancelled_caught:
            await reaper.end_others(0)
        nursery.cancel_scope.cancel()
    return status


@dataclass(slots=True)
class _Running:
    """The command, from its start to its end. `patience` is that with what it leaves behind."""

    pid: int
    stop_grace: float
    holds_terminal: bool
    launcher: socket.socket | None
    has_ended: bool = False
    patience: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def itself(self) -> "_Running":
        """For `Reaper.owning`: it was started before the reaper."""
        return self

    async def wait(self) -> int:
        """Waits for its end, and gives its exit status as a shell has it."""
        descriptor = os.pidfd_open(self.pid)
        await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)
        return self._reap()

    def _reap(self) -> int:
        self.has_ended = True
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])  # it has ended: this does not wait
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """To the whole group. What is left of it after the command's end is ended in another way."""
        if not self.has_ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def forward_signals(self, nursery: trio.Nursery) -> None:
        """For ever. The first that asks for the end sets the time of the last one."""
        descriptor = open_signals(CATCHABLE - NOT_FORWARDED)
        is_ending = False
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                for number in read_signals(descriptor):
                    self.signal(number)
                    if number in _ENDING and not is_ending:
                        is_ending = True
                        nursery.start_soon(self._kill_later)
        finally:
            os.close(descriptor)

    async def _kill_later(self) -> None:
        await trio.sleep(self.stop_grace)
        self.signal(signal.SIGKILL)

    def look_for_stop(self) -> None:
        """Tells the launcher when the command was stopped while it had the terminal: the shell should have it now."""
        if self.launcher is None or not self.holds_terminal:
            return
        with suppress(ChildProcessError, OSError):
            if os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG) is not None:
                self.holds_terminal = False
                self.launcher.send(STOPPED)

    async def follow_launcher(self) -> None:
        """Continues the command when the launcher was continued, with the terminal if it has it; ends everything when it is gone."""
        if self.launcher is None:
            return
        with suppress(ConnectionResetError):
            while True:
                await trio.lowlevel.wait_readable(self.launcher)
                where = self.launcher.recv(1)
                if not where:
                    break
                if where == IN_FOREGROUND and not self.has_ended:
                    with suppress(OSError):  # it hung up
                        os.tcsetpgrp(_STDIN, self.pid)
                    self.holds_terminal = True
                self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.patience.cancel()
