"""`[[process]]` of enclave.toml: the customer's programs, what each may have, and the order in which they start."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from runtime.enclave import config_values as values
from runtime.enclave.config_values import AbsolutePath, Argument, GroupId, Label, Url, User, VariableName, Wait, unique
from runtime.net.endpoint import Tcp
from runtime.settings import Duration, KeyProblem, NonEmpty, Parse, Range, Size

NOBODY = User(65534, 65534)
"""Who a process runs as when neither its table nor the image says."""

_Command = Annotated[tuple[Argument, ...], NonEmpty()]
_Count = Annotated[int, Range(1, 1 << 22)]
_Bytes = Annotated[Size, Range(0, 1 << 50)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """How a process is known to be ready: exactly one of an HTTP request, a TCP connection or a command that exits with 0."""

    http: Annotated[Url, Parse(values.http_url)] | None = None
    tcp: Annotated[Tcp, Parse(values.host_and_port, show=values.show_host_and_port)] | None = None
    exec: _Command | None = None
    interval: Wait = 1.0
    timeout: Wait = 2.0
    failures: Annotated[int, Range(1, 1000)] = 3

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.http, self.tcp, self.exec)) != 1:
            raise ValueError("must have exactly one of http, tcp and exec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimits:
    """Resource limits (setrlimit(2)) of one process, soft and hard. What is None is that of `[limits]`, or the machine's."""

    nofile: Annotated[int, Range(16, 1 << 20)] | None = None
    nproc: _Count | None = None
    core: _Bytes = 0
    stack: Annotated[Size, Range(64 * 1024, 1 << 50)] | None = None
    memlock: _Bytes | None = None
    data: _Bytes | None = None
    address_space: _Bytes | None = None
    fsize: _Bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """`[[process]]`: one program of the customer. Without `command` it is the image's Entrypoint and Cmd, without `user` its User."""

    name: Label
    kind: Literal["service", "job"] = "service"
    command: _Command | None = None
    user: User | None = None
    groups: tuple[GroupId, ...] = ()
    umask: Annotated[int, Parse(values.umask, show=values.show_umask)] = 0o022
    workdir: AbsolutePath | None = None
    after: tuple[str, ...] = ()
    restart: Literal["never", "on-failure", "always"] = "on-failure"
    pre_stop: _Command | None = None
    stop_grace: Annotated[Duration, Range(0, 3600)] = 20.0
    ready: Ready | None = None
    env: dict[str, Argument] = field(default_factory=dict)
    secrets: tuple[VariableName, ...] = ()
    memory: Annotated[Size, Range(1 << 20, 1 << 50)] | None = None
    pids: _Count | None = None
    rlimits: Rlimits = Rlimits()

    def __post_init__(self) -> None:
        if self.command is not None and not self.command[0]:
            raise KeyProblem("must not be empty", "command", 0)
        if self.pre_stop is not None and not self.pre_stop[0]:
            raise KeyProblem("must not be empty", "pre_stop", 0)
        for name in self.env:
            if not name or "=" in name or "\0" in name:
                raise KeyProblem("is not a name that an environment can have", "env", name)
            if name in self.secrets:
                raise KeyProblem("is the name of a secret too", "env", name)
        unique(self.secrets, "secrets")
        unique(self.after, "after")
        unique(self.groups, "groups")
        if self.kind == "job":
            self._check_job()

    def _check_job(self) -> None:
        if self.ready is not None:
            raise KeyProblem("has no meaning for a job, which is ready when it has ended with 0", "ready")
        if self.restart == "always":
            raise KeyProblem("must be never or on-failure: a job that is done is not run again", "restart")


def start_order(processes: Iterable[Process]) -> tuple[Process, ...]:
    """The processes with each behind all that it comes `after`, otherwise as written; those of a cycle are left out."""
    waiting = list(processes)
    ordered: dict[str, Process] = {}
    while following := next((process for process in waiting if ordered.keys() >= set(process.after)), None):
        waiting.remove(following)
        ordered[following.name] = following
    return tuple(ordered.values())


def check_order(processes: tuple[Process, ...]) -> None:
    """Raises `KeyProblem` when two processes have one name, or one comes after what is none, or after itself."""
    names = [process.name for process in processes]
    for index, process in enumerate(processes):
        if process.name in names[:index]:
            raise KeyProblem(f'"{process.name}" is another process already', "process", index, "name")
        for place, name in enumerate(process.after):
            if name not in names:
                raise KeyProblem(f'"{name}" is not a process', "process", index, "after", place)
    started = {process.name for process in start_order(processes)}
    for index, process in enumerate(processes):
        if process.name not in started:
            raise KeyProblem("waits for itself, through the processes that it comes after", "process", index, "after")
