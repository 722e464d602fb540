"""A supervisor over real processes, with what it tells others kept in one list, in order."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from runtime.enclave.config import EnclaveConfig
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.customer import Ended
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.supervisor import CustomerFailed, Hooks, Supervisor
from runtime.protocol.bundle import Secret
from tests.enclave.test_config import PROVISIONER, loaded
from tests.support.outputs import lines_to

Told: TypeAlias = tuple[str, str, object]
"""(what, process, detail): a note's event, "line", "exit", "ready" or "watch"."""

PATIENCE = 20.0
API = "http://127.0.0.1:9999"


def config(processes: str, tables: str = "") -> EnclaveConfig:
    """A config of these [[process]] tables, and others."""
    return loaded(f'version = 1\n[enclave]\nid = "e"\n{processes}\n{tables}\n{PROVISIONER}')


def process(name: str, script: str, **keys: object) -> str:
    """A process that runs a script in the shell, or in Python when it has more than one line. Keys are written as TOML has them.

    Its user is ours, less every capability, so that this interpreter and the test's files are within its reach wherever they are.
    """
    command = [sys.executable, "-I", "-S", "-c"] if "\n" in script else ["/bin/sh", "-c"]
    given = {"restart": '"never"', "user": '"0:0"'} | keys
    lines = [f"{key} = {value}" for key, value in given.items()]
    return "\n".join(["[[process]]", f'name = "{name}"', f"command = {json.dumps([*command, script])}", *lines, ""])


@dataclass(slots=True)
class Supervised:
    """A supervisor that runs, and what it has said so far."""

    supervisor: Supervisor
    told: list[Told] = field(default_factory=list)
    status: int | None = None
    failure: CustomerFailed | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    changed: trio.Event = field(default_factory=trio.Event)

    def tell(self, what: str, process: str, detail: object = None) -> None:
        self.told.append((what, process, detail))
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, is_it: Callable[[Told], bool]) -> Told:
        """The first that was told and is it, now or to come."""
        while True:
            for told in self.told:
                if is_it(told):
                    return told
            await self.changed.wait()

    async def until_line(self, process: str, line: bytes) -> None:
        await self.until(lambda told: told == ("line", process, ("stdout", line)))

    def kinds(self, *whats: str) -> list[tuple[str, str]]:
        """(what, process) of what was told of these kinds, in order."""
        return [(what, process) for what, process, _ in self.told if what in whats]

    def lines(self, process: str, stream: str = "stdout") -> list[bytes]:
        return [
            detail[1]
            for what, name, detail in self.told
            if what == "line" and name == process and isinstance(detail, tuple) and detail[0] == stream
        ]

    def exits(self, process: str) -> list[Ended]:
        return [detail for what, name, detail in self.told if what == "exit" and name == process and isinstance(detail, Ended)]

    def pid(self, process: str) -> int:
        """Of the last time that it was started."""
        pids = [detail for what, name, detail in self.told if what == "process_started" and name == process]
        assert isinstance(pids[-1], int)
        return pids[-1]


@asynccontextmanager
async def supervising(
    settings: EnclaveConfig, *, image: ImageConfig | None = None, secrets: dict[str, Secret] | None = None
) -> AsyncIterator[Supervised]:
    """A supervisor that runs in the background; stopped, without a grace, when the block ends."""
    supervised: Supervised

    def note(event: str, fields: object) -> None:
        assert isinstance(fields, dict)
        supervised.tell(event, str(fields["process"]), fields.get("pid"))

    hooks = Hooks(
        note=note,
        output=lines_to(lambda name, stream, line: supervised.tell("line", name, (stream, line)), settings.log.max_line_size),
        on_exit=lambda name, ended: supervised.tell("exit", name, ended),
        on_ready=lambda is_ready: supervised.tell("ready", "", is_ready),
        watch=lambda name, is_on: supervised.tell("watch", name, is_on),
    )
    supervisor = Supervisor(settings, image or ImageConfig(), secrets or {}, api=API, hooks=hooks, reaper=Reaper())
    supervised = Supervised(supervisor)

    async def run() -> None:
        try:
            supervised.status = await supervisor.run()
        except CustomerFailed as failure:
            supervised.failure = failure
        supervised.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield supervised
        finally:
            with trio.CancelScope(shield=True):
                await supervisor.stop(0)
                await supervised.ended.wait()


async def outcome(settings: EnclaveConfig, **given: object) -> Supervised:
    """What came of processes that end by themselves."""
    async with supervising(settings, **given) as supervised:  # type: ignore[arg-type] # passed on as it is
        with trio.fail_after(PATIENCE):
            await supervised.ended.wait()
    return supervised
