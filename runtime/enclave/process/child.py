"""A child of this process, from fork to reaping: watched and signalled by its pidfd, reaped with what it used.

The descriptor means this one process for as long as it is open. A number does not: once reaped, it may be another's.
"""

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from subprocess import DEVNULL, Popen  # noqa: TID251 - this is where processes are made; trio's own would lose what a child used

import trio

from runtime.enclave.shortage import thread_is_wanted
from runtime.protocol.link_values import Stream

_PIDFD_SIGNAL_PROCESS_GROUP = 4  # Linux 6.9
_GROUP_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """How a child ended: by exit code or by signal, and the most memory that it or a child of its own had at once (getrusage(2)).

    A child begins as a copy of this process, so `peak_kib` is never under what this process had then.
    """

    code: int | None
    signal: int | None
    peak_kib: int


class Child:
    """A running process that leads a session and group of its own. `pid` is its number until it is reaped."""

    def __init__(self, popen: "Popen[bytes]", pidfd: int, outputs: Mapping[Stream, int]) -> None:
        self._popen = popen
        self._pidfd = pidfd
        self._turn = trio.Lock()
        self._reaped: Reaped | None = None
        self.pid = popen.pid
        self.outputs = {stream: trio.lowlevel.FdStream(descriptor) for stream, descriptor in outputs.items()}

    async def wait(self) -> Reaped:
        """Waits for its end and reaps it; any number of tasks may wait."""
        async with self._turn:
            if self._reaped is None:
                await trio.lowlevel.wait_readable(self._pidfd)
                self._reaped = self._reap()
            return self._reaped

    async def wait_for_group(self) -> None:
        """Waits until nobody is left in the group of a process that was reaped."""
        while self._send(0):
            self._reap_left_behind()
            await trio.sleep(_GROUP_POLL_SECONDS)

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group, what the process has left behind in it included."""
        self._send(number)

    async def aclose(self) -> None:
        """Kills what is left, reaps, and gives every descriptor back. Cannot be cancelled."""
        with trio.CancelScope(shield=True):
            if self._pidfd < 0:
                return
            self.signal(signal.SIGKILL)
            await self.wait()
            for output in self.outputs.values():
                await output.aclose()
            os.close(self._pidfd)
            self._pidfd = -1

    def _send(self, number: int) -> bool:
        """Whether there was somebody in the group to hear it."""
        try:
            signal.pidfd_send_signal(self._pidfd, number, None, _PIDFD_SIGNAL_PROCESS_GROUP)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # somebody is there, under another user; only without root can that be
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return self._send_by_number(number)
        return True

    def _send_by_number(self, number: int) -> bool:
        """For older kernels. The number is the group's for as long as anybody is in it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
            return True
        return False

    def _reap_left_behind(self) -> None:
        """Orphans of the group that have become our own children. For as long as one of them is there the group's number is theirs."""
        with suppress(ChildProcessError):
            while os.waitid(os.P_PGID, self.pid, os.WEXITED | os.WNOHANG) is not None:
                pass

    def _reap(self) -> Reaped:
        _, status, usage = os.wait4(self.pid, 0)  # it has ended: this does not wait
        ended = os.waitstatus_to_exitcode(status)
        self._popen.returncode = ended  # so that nobody waits for it again
        return Reaped(code=ended if ended >= 0 else None, signal=-ended if ended < 0 else None, peak_kib=usage.ru_maxrss)


async def start_child(
    command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int], prepare: Callable[[], None]
) -> Child:
    """Forks and executes. `prepare` runs in the child, with all that it inherits, before everything but `descriptors` is closed.

    Raises OSError, `SubprocessError` when `prepare` raised, or ValueError for what no environment or command line can hold.
    """
    with thread_is_wanted():
        popen, pidfd, outputs = await trio.to_thread.run_sync(partial(_start, command, environment, descriptors, prepare))
    return Child(popen, pidfd, outputs)


def _start(
    command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int], prepare: Callable[[], None]
) -> tuple["Popen[bytes]", int, dict[Stream, int]]:
    """The blocking part: fork, and the wait for exec."""
    opened: list[int] = []
    ours: list[int] = []
    try:
        for _ in range(2):
            read, write = os.pipe2(os.O_CLOEXEC)
            ours.append(read)
            opened.append(write)
        popen = Popen(
            command,
            stdin=DEVNULL,
            stdout=opened[0],
            stderr=opened[1],
            env=environment,
            pass_fds=descriptors,
            preexec_fn=prepare,  # noqa: PLW1509 - isolation.py takes no lock
        )
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError:
            popen.kill()
            popen.wait()
            raise
    except BaseException:
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return popen, pidfd, {"stdout": ours[0], "stderr": ours[1]}
