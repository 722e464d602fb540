"""PID 1's hold on the fork server of its workers (runtime/enclave/worker/__main__.py), which is started again when it was killed."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from subprocess import DEVNULL  # noqa: TID251 - a constant; the process is trio's

import trio

from runtime.enclave.process.reaper import Reaper
from runtime.enclave.shortage import thread_is_wanted
from runtime.protocol.link_values import JournalFields, Level

_PID_SIZE = 4
_ANSWER_SECONDS = 20.0
_PAUSE_LEAST = 0.1
_PAUSE_MOST = 5.0


class Forked:
    """A worker process, a child of this one. `pid` is its own until `wait` has returned."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    async def ended(self) -> None:
        """Waits for its end. Its status is still to be taken."""
        await trio.lowlevel.wait_readable(self._descriptor)

    async def wait(self) -> int:
        """Waits for its end, and takes its status: the exit code, or the negative number of the signal."""
        await self.ended()
        os.close(self._descriptor)
        return self._take_status()

    def _take_status(self) -> int:
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED)  # it has ended: this does not wait
        assert ended is not None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def kill(self) -> None:
        """Ends it now."""
        with suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)


class ForkServer:
    """Starts workers. `run` it in a nursery; a worker that is asked for while no server runs waits for the next one."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper = reaper
        self._control: socket.socket | None = None
        self._server: trio.Process | None = None
        self._up = trio.Event()
        self._turn = trio.Lock()

    async def run(self, note: Callable[[str, JournalFields, Level], None] = lambda _event, _fields, _level: None) -> None:
        """Keeps a server running, also when there is not enough memory or there are not enough processes to start one now.

        `note` is told how each one ended.
        """
        pause = _PAUSE_LEAST
        while True:
            began = trio.current_time()
            try:
                status = await self._run_once()
            except OSError as error:
                fields: JournalFields = {"reason": "fork_server_unstarted", "errno": errno.errorcode.get(error.errno or 0, "")}
            else:
                reason, kind = ("fork_server_killed", "signal") if status < 0 else ("fork_server_exited", "code")
                fields = {"reason": reason, kind: abs(status)}
            note("fork_server.ended", fields, "error")
            pause = _PAUSE_LEAST if trio.current_time() - began > _PAUSE_MOST else min(2 * pause, _PAUSE_MOST)
            await trio.sleep(pause)

    async def _run_once(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            alone = "-IS" if sys.flags.no_site else "-I"  # an image has no `site`, and a virtual environment is found by it
            command = [sys.executable, alone, "-m", "runtime.enclave.worker", str(theirs.fileno())]

            async def start(command: list[str] = command, descriptor: int = theirs.fileno()) -> trio.Process:
                with thread_is_wanted():
                    return await trio.lowlevel.open_process(command, stdin=DEVNULL, pass_fds=[descriptor], env={})

            async with self._reaper.owning(start) as server:
                theirs.close()
                ours.setblocking(False)
                self._control, self._server = ours, server
                self._up.set()
                try:
                    return await server.wait()
                finally:
                    self._up = trio.Event()
                    self._server = None
                    trio.lowlevel.notify_closing(ours)
                    ours.close()
                    server.kill()
                    with trio.CancelScope(shield=True):
                        await server.wait()

    async def fork(self, descriptors: list[int]) -> Forked:
        """A worker that inherits `descriptors`. Raises OSError when no server forks one.

        A server that does not answer is ended: a late answer would be taken for the next one's.
        """
        async with self._turn:
            try:
                with trio.fail_after(_ANSWER_SECONDS):
                    await self._up.wait()
                    assert self._control is not None
                    control = self._control
                    await trio.lowlevel.wait_writable(control)
                    socket.send_fds(control, [b"f"], descriptors)
                    await trio.lowlevel.wait_readable(control)
                    answer = control.recv(_PID_SIZE)
            except trio.TooSlowError as error:
                if self._server is not None:
                    self._server.kill()
                raise TimeoutError(errno.ETIMEDOUT, "the fork server does not answer") from error
            except trio.ClosedResourceError as error:
                raise ConnectionResetError(errno.ECONNRESET, "the fork server ended") from error
        if len(answer) != _PID_SIZE:
            raise ConnectionResetError("the fork server ended")
        return Forked(int.from_bytes(answer, "big"))
