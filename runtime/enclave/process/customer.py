"""One run of one customer process: spawn, follow its output, stop it, know how it ended."""

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from subprocess import SubprocessError  # noqa: TID251 - an error; the process is started in child.py
from typing import Protocol

import trio

from runtime.enclave.config import EnclaveConfig, Process
from runtime.enclave.config_egress import proxy_environment
from runtime.enclave.config_process import NOBODY
from runtime.enclave.config_values import User
from runtime.enclave.identity.secrets import grant
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.cgroups import Cgroup
from runtime.enclave.process.child import Child, start_child
from runtime.enclave.process.isolation import Isolation
from runtime.enclave.process.limits import resource_limits
from runtime.enclave.process.seccomp import customer_filter
from runtime.enclave.shortage import shortage_of
from runtime.protocol.bundle import Secret
from runtime.protocol.link_values import Stream

LINE_DIGEST_SIZE = 8

_READ_SIZE = 64 * 1024
_PIPE_SIZE = 256 * 1024
_TURN_LINES = 2048
_COMPLAINT_MAX = 500


class Output(Protocol):
    """Where one stream of a run goes. Never waits. Both give the last line that became whole, or None."""

    def feed(self, data: bytes) -> bytes | None:
        """Bytes as they were read, in their order."""

    def close(self) -> bytes | None:
        """No more will come."""


OpenOutput = Callable[[str, Stream], Output]
"""(process, stream)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: by exit code, or by signal; two that ended alike are equal, whatever else is known of them.

    `uptime` in seconds; `peak_kib` of memory, of its control group if it had one, else as `Reaped` has it; `last_line` the first 8 bytes
    of the SHA-256 of the last line that it wrote, empty if it wrote none; `oom_kills` of its control group.
    """

    code: int | None
    signal: int | None
    uptime: float = field(default=0.0, compare=False)
    peak_kib: int = field(default=0, compare=False)
    last_line: bytes = field(default=b"", compare=False)
    oom_kills: int = field(default=0, compare=False)

    @property
    def is_failure(self) -> bool:
        """Whether it was anything but exit code 0."""
        return self.code != 0

    @property
    def status(self) -> int:
        """What a shell would say: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


class SpawnFailed(Exception):
    """The process could not be started; `reason` is "command_missing", "command_not_executable", "command_format" or "spawn_failed".

    `shortage` names what the machine is short of (shortage.py), where that is why: another attempt may succeed.
    """

    def __init__(self, reason: str, detail: str, *, shortage: str = "") -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail
        self.shortage = shortage


class Customer:
    """A running process. `pid` is its session and process group as well. Close it when it is done with; the control group stays."""

    def __init__(self, child: Child, name: str, cgroup: Cgroup | None = None) -> None:
        self._child = child
        self._cgroup = cgroup
        self._began = trio.current_time()
        self._last_line: bytes | None = None
        self._patience = trio.CancelScope()
        self.name = name

    @property
    def pid(self) -> int:
        return self._child.pid

    async def follow(self, open_output: OpenOutput, *, grace: float = 0.0) -> Ended:
        """Hands all output on until the process has ended, nobody is left in its group and its pipes are empty.

        What it leaves behind in its group gets TERM, and KILL after `grace` seconds; what got away from the group may hold a pipe open
        for one second more.
        """
        async with trio.open_nursery() as nursery:
            for stream, receive in self._child.outputs.items():
                nursery.start_soon(self._follow_stream, receive, open_output(self.name, stream))
            reaped = await self._child.wait()
            uptime = trio.current_time() - self._began
            self.signal(signal.SIGTERM)
            self._patience.deadline = trio.current_time() + grace
            with self._patience:
                await self._child.wait_for_group()
            self.signal(signal.SIGKILL)
            nursery.cancel_scope.deadline = trio.current_time() + 1.0
        peak = None if self._cgroup is None else self._cgroup.peak_kib()
        return Ended(
            code=reaped.code,
            signal=reaped.signal,
            uptime=uptime,
            peak_kib=reaped.peak_kib if peak is None else peak,
            last_line=b"" if self._last_line is None else sha256(self._last_line).digest()[:LINE_DIGEST_SIZE],
            oom_kills=0 if self._cgroup is None else self._cgroup.oom_kills(),
        )

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group; a group that is gone has nothing left to hear it."""
        self._child.signal(number)
        if number == signal.SIGKILL:
            self._patience.cancel()

    async def aclose(self) -> None:
        """Kills what is still there of its group, and gives everything back. Cannot be cancelled."""
        await self._child.aclose()

    async def _follow_stream(self, stream: trio.lowlevel.FdStream, output: Output) -> None:
        """Drains a pipe without ever making the process wait for more than a turn of the loop; a larger pipe makes that rarer."""
        with suppress(OSError):  # beyond what this user may have in pipes
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        async with stream:
            try:
                while data := await stream.receive_some(_READ_SIZE):
                    for part in _turns(bytes(data)):
                        if (line := output.feed(part)) is not None:
                            self._last_line = line
                            await trio.lowlevel.checkpoint()
            finally:
                if (line := output.close()) is not None:
                    self._last_line = line


async def spawn(
    process: Process,
    config: EnclaveConfig,
    image: ImageConfig,
    secrets: Mapping[str, Secret],
    *,
    api: str,
    cgroup: Cgroup | None = None,
) -> Customer:
    """Starts a process with a clean environment. Raises `SpawnFailed`, or `Refused` when a promised secret did not come.

    Without a `cgroup`, resource limits stand in for the process's limits of memory and pids.
    """
    command = list(process.command or image.command)
    if not command:
        raise SpawnFailed("command_missing", f"process {process.name} has no command, and neither has the image")
    user = process.user or (NOBODY if image.user is None else User(*image.user))
    groups = process.groups if process.groups or process.user is not None else image.groups
    isolation = Isolation(
        uid=user.uid,
        gid=user.gid,
        groups=groups,
        root=image.root,
        directory=process.workdir or image.directory,
        umask=process.umask,
        limits=resource_limits(process, config.limits, has_cgroup=cgroup is not None),
        cgroup=None if cgroup is None else cgroup.procs,
        is_privileged=os.geteuid() == 0,
        filter=customer_filter(os.uname().machine),
    )
    with ExitStack() as opened:
        try:
            granted = opened.enter_context(closing(grant(process.secrets, secrets, uid=user.uid, gid=user.gid)))
            complaints, complain = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SpawnFailed("spawn_failed", f"{command[0]}: {error.strerror}", shortage=shortage_of(error)) from error
        opened.callback(os.close, complaints)
        opened.callback(os.close, complain)
        environment = {
            **image.environment,
            "ENCLAVE_ATTESTATION_URL": api,
            **(proxy_environment(config.egress) if image.root is not None else {}),  # without a root there is no egress either
            **process.env,
            **{name: os.fsdecode(value) for name, value in granted.environment.items()},  # `execve` gets the very bytes again
        }
        try:
            child = await start_child(command, environment, granted.descriptors, partial(isolation.apply, complain))
        except FileNotFoundError as error:
            raise SpawnFailed("command_missing", f"{command[0]}: {error.strerror}") from error
        except PermissionError as error:
            raise SpawnFailed("command_not_executable", f"{command[0]}: {error.strerror}") from error
        except OSError as error:
            detail = f"{command[0]}: {error.strerror}"
            reason = "command_format" if error.errno == errno.ENOEXEC else "spawn_failed"
            raise SpawnFailed(reason, detail, shortage=shortage_of(error)) from error
        except (SubprocessError, ValueError) as error:  # the isolation failed in the child; a name that no environment can have
            raise SpawnFailed("spawn_failed", f"{command[0]}: {_read(complaints) or error}") from error
    return Customer(child, process.name, cgroup)


def _read(complaints: int) -> str:
    with suppress(BlockingIOError):
        return os.read(complaints, _COMPLAINT_MAX).decode(errors="backslashreplace")
    return ""


def _turns(data: bytes) -> Iterable[bytes]:
    """`data` in parts of so few lines that the loop is not held up by one."""
    if data.count(b"\n") <= _TURN_LINES:
        return (data,)
    return (data[start : start + _TURN_LINES] for start in range(0, len(data), _TURN_LINES))
