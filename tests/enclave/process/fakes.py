"""Processes that are none: they do what a test says, and keep what was done to them in one list."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from runtime.enclave.config import EnclaveConfig, Process
from runtime.enclave.logs.discarded import discard
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.cgroups import Cgroup
from runtime.enclave.process.customer import Ended, OpenOutput, SpawnFailed
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.supervisor import CustomerFailed, Hooks, Supervisor
from runtime.protocol.bundle import Secret
from runtime.protocol.link_values import JournalFields
from tests.enclave.test_config import SMALLEST, loaded


@dataclass(slots=True)
class FakeProcess:
    """Runs until `end`, or until it is killed. It hears TERM, and does nothing for it by itself."""

    name: str
    pid: int
    command: tuple[str, ...] | None
    on_signal: Callable[["FakeProcess", int], None]
    ended: Ended | None = None
    heard: list[int] = field(default_factory=list)
    _gone: trio.Event = field(default_factory=trio.Event)

    def end(self, code: int | None = 0, number: int | None = None) -> None:
        if self.ended is None:
            self.ended = Ended(code=code, signal=number)
            self._gone.set()

    async def follow(self, open_output: OpenOutput, *, grace: float = 0.0) -> Ended:
        await self._gone.wait()
        assert self.ended is not None
        return self.ended

    def signal(self, number: int) -> None:
        if self.ended is None:
            self.heard.append(number)
            self.on_signal(self, number)
            if number == signal.SIGKILL:
                self.end(None, number)

    async def aclose(self) -> None:
        self.signal(signal.SIGKILL)


@dataclass(slots=True)
class Fakes:
    """A supervisor over such processes. `on_launch` and `on_signal` may object; `refused` names what cannot be started."""

    config: EnclaveConfig
    on_launch: Callable[[Process], None] = lambda _: None
    on_signal: Callable[[FakeProcess, int], None] = lambda _process, _number: None
    refused: set[str] = field(default_factory=set)
    launched: list[FakeProcess] = field(default_factory=list)
    journal: list[tuple[str, JournalFields]] = field(default_factory=list)
    watched: list[tuple[str, bool]] = field(default_factory=list)
    was_ready: list[bool] = field(default_factory=list)
    exits: list[tuple[str, Ended]] = field(default_factory=list)
    outcome: int | CustomerFailed | None = None
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        hooks = Hooks(
            note=lambda event, fields: self.journal.append((event, fields)),
            output=discard,
            on_exit=lambda name, ended: self.exits.append((name, ended)),
            on_ready=self.was_ready.append,
            watch=lambda name, is_on: self.watched.append((name, is_on)),
        )
        self.supervisor = Supervisor(
            self.config, ImageConfig(), {}, api="http://127.0.0.1:9999", hooks=hooks, reaper=Reaper(), launch=self.launch
        )

    async def launch(
        self,
        process: Process,
        config: EnclaveConfig,
        image: ImageConfig,
        secrets: Mapping[str, Secret],
        /,
        *,
        api: str,
        cgroup: Cgroup | None,
    ) -> FakeProcess:
        self.on_launch(process)
        await trio.lowlevel.checkpoint()
        if process.name in self.refused:
            raise SpawnFailed("command_missing", process.name)
        self.launched.append(FakeProcess(process.name, 1000 + len(self.launched), process.command, self.on_signal))
        return self.launched[-1]

    async def run(self) -> None:
        """Until all has ended; how, is in `outcome`."""
        try:
            self.outcome = await self.supervisor.run()
        except CustomerFailed as failure:
            self.outcome = failure

    def alive(self, name: str) -> FakeProcess | None:
        """The run of a process that goes on, its commands aside."""
        (configured,) = (process for process in self.config.process if process.name == name)
        runs = [run for run in self.launched if (run.name, run.command) == (name, configured.command) and run.ended is None]
        assert len(runs) <= 1, "two runs of one process at once"
        return runs[0] if runs else None

    def events(self, *names: str) -> list[tuple[str, object]]:
        """(event, process) of what the journal says of these events."""
        return [(event, fields["process"]) for event, fields in self.journal if event in names]


def config_with(*processes: str, tables: str = "") -> EnclaveConfig:
    """A config of these processes, each the keys of its table; `tables` are others."""
    written = "".join(f"[[process]]\n{keys}\n" for keys in processes)
    return loaded(SMALLEST.replace('[[process]]\nname = "app"\n', written) + tables)
