"""PID 1's hold on the fork server of its workers (runtime/enclave/worker/__main__.py), which is started again when it was killed."""

import errno
import os
import signal
import socket
import sys
from contextlib import suppress
from subprocess import DEVNULL  # noqa: TID251 - a constant; the process is trio's

import trio

from runtime.enclave.process.reaper import Reaper

_PID_SIZE = 4
_ANSWER_SECONDS = 20.0


class Forked:
    """A worker process, a child of this one. `pid` is its own until `wait` has returned."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    async def wait(self) -> None:
        """Waits for its end, and takes its status."""
        await trio.lowlevel.wait_readable(self._descriptor)
        os.close(self._descriptor)
        self._take_status()

    def _take_status(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED)  # it has ended: this does not wait

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

    async def run(self) -> None:
        """Keeps a server running, also when there is not enough memory or there are not enough processes to start one now."""
        while True:
            with suppress(OSError):
                await self._run_once()
            await trio.sleep(0.1)

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-m", "runtime.enclave.worker", str(theirs.fileno())]

            async def start(command: list[str] = command, descriptor: int = theirs.fileno()) -> trio.Process:
                return await trio.lowlevel.open_process(command, stdin=DEVNULL, pass_fds=[descriptor], env={})

            async with self._reaper.owning(start) as server:
                theirs.close()
                ours.setblocking(False)
                self._control, self._server = ours, server
                self._up.set()
                try:
                    await server.wait()
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
