"""One run of one customer process: spawn, follow its output, stop it, know how it ended."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from subprocess import DEVNULL, PIPE, SubprocessError  # noqa: TID251 - constants and an error; the process is trio's

import trio

from runtime.enclave.config import EnclaveConfig, Process
from runtime.enclave.identity.secrets import grant
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.isolation import Isolation
from runtime.enclave.process.lines import LineSplitter
from runtime.enclave.process.seccomp import customer_filter
from runtime.protocol.bundle import Secret
from runtime.protocol.link_values import STREAMS, Stream

_READ_SIZE = 64 * 1024
_COMPLAINT_MAX = 500

OnLine = Callable[[str, Stream, bytes], None]
"""(process, stream, line). Must not block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: by exit code, or by signal."""

    code: int | None
    signal: int | None

    @property
    def is_failure(self) -> bool:
        """Whether it was anything but exit code 0."""
        return self.code != 0

    @property
    def status(self) -> int:
        """What a shell would say: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


class SpawnFailed(Exception):
    """The process could not be started; `reason` is "command_missing", "command_not_executable" or "spawn_failed"."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


class Customer:
    """A running process. `pid` is its session and process group as well."""

    def __init__(self, process: trio.Process, name: str) -> None:
        self._process = process
        self.name = name

    @property
    def pid(self) -> int:
        return self._process.pid

    async def follow(self, on_line: OnLine, max_line: int) -> Ended:
        """Hands every line to `on_line` until the process has ended and its pipes are empty or a second has passed."""
        async with trio.open_nursery() as nursery:
            for stream in STREAMS:
                receive = self._process.stdout if stream == "stdout" else self._process.stderr
                assert receive is not None
                nursery.start_soon(_follow_stream, receive, partial(on_line, self.name, stream), max_line)
            status = await self._process.wait()
            # Something it left behind may hold a pipe open for ever.
            nursery.cancel_scope.deadline = trio.current_time() + 1.0
        return Ended(code=status, signal=None) if status >= 0 else Ended(code=None, signal=-status)

    async def stop(self, grace: float) -> None:
        """TERM to the whole group, KILL after `grace` seconds. Returns when the process has ended."""
        self.signal(signal.SIGTERM)
        with trio.move_on_after(grace):
            await self._process.wait()
        self.signal(signal.SIGKILL)
        await self._process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group; a group that is gone has nothing left to hear it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


async def spawn(
    process: Process, config: EnclaveConfig, image: ImageConfig, secrets: Mapping[str, Secret], *, api: str
) -> Customer:
    """Starts a process with a clean environment. Raises `SpawnFailed`, or `Refused` when a promised secret did not come."""
    command = list(process.command or image.command)
    if not command:
        raise SpawnFailed("command_missing", f"process {process.name} has no command, and neither has the image")
    is_privileged = os.geteuid() == 0
    granted = grant(process.secrets, secrets, uid=process.user.uid, gid=process.user.gid)
    isolation = Isolation(
        uid=process.user.uid,
        gid=process.user.gid,
        root=image.root,
        directory=process.workdir or image.directory,
        open_files=config.limits.open_files,
        processes=config.limits.processes,
        is_privileged=is_privileged,
        filter=customer_filter(os.uname().machine),
    )
    environment = {
        **image.environment,
        "ENCLAVE_ATTESTATION_URL": api,
        **process.env,
        **{name: os.fsdecode(value) for name, value in granted.environment.items()},  # `execve` gets the very bytes again
    }
    complaints, complain = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        started = await trio.lowlevel.open_process(
            command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            pass_fds=granted.descriptors,
            preexec_fn=partial(isolation.apply, complain),
        )
    except FileNotFoundError as error:
        raise SpawnFailed("command_missing", f"{command[0]}: {error.strerror}") from error
    except PermissionError as error:
        raise SpawnFailed("command_not_executable", f"{command[0]}: {error.strerror}") from error
    except OSError as error:
        raise SpawnFailed("spawn_failed", f"{command[0]}: {error.strerror}") from error
    except (SubprocessError, ValueError) as error:  # the isolation failed in the child; a name that no environment can have
        raise SpawnFailed("spawn_failed", f"{command[0]}: {_read(complaints) or error}") from error
    finally:
        granted.close()
        os.close(complaints)
        os.close(complain)
    return Customer(started, process.name)


def _read(complaints: int) -> str:
    with suppress(BlockingIOError):
        return os.read(complaints, _COMPLAINT_MAX).decode(errors="backslashreplace")
    return ""


async def _follow_stream(stream: trio.abc.ReceiveStream, on_line: Callable[[bytes], None], max_line: int) -> None:
    splitter = LineSplitter(max_line)
    async with stream:
        try:
            while data := await stream.receive_some(_READ_SIZE):
                for line in splitter.feed(bytes(data)):
                    on_line(line)
        finally:
            for line in splitter.finish():
                on_line(line)
