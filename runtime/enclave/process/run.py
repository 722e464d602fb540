"""One process of the supervisor and where it stands, and what the supervisor asks of a running one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import trio

from runtime.enclave.config import EnclaveConfig, Process
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.cgroups import Cgroup
from runtime.enclave.process.customer import Ended, OpenOutput
from runtime.enclave.process.restarts import Restarts
from runtime.protocol.bundle import Secret

_RESERVED = 2.0


class Running(Protocol):
    """A process that runs: see `Customer`."""

    @property
    def pid(self) -> int:
        """Its number, and its group's."""

    async def follow(self, open_output: OpenOutput, *, grace: float = 0.0) -> Ended:
        """Until it and its group are gone."""

    def signal(self, number: int) -> None:
        """To its group."""

    async def aclose(self) -> None:
        """Kills what is there."""


class Launch(Protocol):
    """Starts a process: see `spawn`."""

    async def __call__(
        self,
        process: Process,
        config: EnclaveConfig,
        image: ImageConfig,
        secrets: Mapping[str, Secret],
        /,
        *,
        api: str,
        cgroup: Cgroup | None,
    ) -> Running:
        """Raises `SpawnFailed` or `Refused`."""


@dataclass(slots=True)
class Run:
    """`settled`: it was ready once, or nobody need wait for that any more. `finished`: it is not started again, and nothing of it runs.

    `ready_since` is a time, `healthy` the seconds that the last run had been ready for at its end.
    `grace` is the time that a stop gives it, once its turn has come; `pre_stop` bounds the command that goes before.
    """

    process: Process
    restarts: Restarts
    running: Running | None = None
    cgroup: Cgroup | None = None
    is_ready: bool = False
    was_ready: bool = False
    ready_since: float = math.inf
    healthy: float = 0.0
    exits: list[Ended] = field(default_factory=list)
    settled: trio.Event = field(default_factory=trio.Event)
    finished: trio.Event = field(default_factory=trio.Event)
    grace: trio.CancelScope | None = None
    pre_stop: trio.CancelScope = field(default_factory=trio.CancelScope)

    def signal(self, number: int) -> None:
        """To the process and its group, if it runs."""
        if self.running is not None:
            self.running.signal(number)

    def limit_grace(self, deadline: float) -> None:
        """The grace ends at `deadline`, unless it ends earlier. What goes before leaves some of it to TERM."""
        if self.grace is not None:
            self.grace.deadline = min(self.grace.deadline, deadline)
            reserved = min(_RESERVED, max(0.0, self.grace.deadline - trio.current_time()) / 5)
            self.pre_stop.deadline = min(self.pre_stop.deadline, self.grace.deadline - reserved)
