"""A whole parent over unix sockets and TCP in the test's own process, and enclaves that it can be met by."""

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from runtime.enclave.link import ParentLink
from runtime.net.endpoint import Endpoint, Tcp, Unix, connect
from runtime.net.http import HttpClient, Response
from runtime.parent.config import Enclave, Limits, Listen, Output, ParentConfig
from runtime.parent.server import Listening, run_parent


@dataclass(frozen=True)
class Parent:
    """A running parent."""

    config: ParentConfig
    listening: Listening
    stderr: io.StringIO
    ended: trio.Event

    async def ask(self, method: str, target: str, *, at: Endpoint | None = None) -> Response:
        """An answer of the status socket, or of another endpoint."""
        at = at or self.listening.status
        assert at is not None
        async with await connect(at) as stream:
            return await HttpClient(stream, host="parent").request(method, target, max_body=1 << 20)

    @property
    def socket(self) -> str:
        """The path of the status socket."""
        assert isinstance(self.listening.status, Unix)
        return self.listening.status.path

    @asynccontextmanager
    async def enclave(
        self, *, boot_id: bytes = bytes(16), on_drain: Callable[[int], None] = lambda _: None
    ) -> AsyncIterator[ParentLink]:
        """A real enclave's end of the link, connected."""
        link = ParentLink(
            lambda: connect(self.listening.control), boot_id=boot_id, on_drain=on_drain, metrics=lambda: {"a_total": 1}
        )
        await link.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            yield link
            nursery.cancel_scope.cancel()

    async def until_shown(self, word: str) -> None:
        """Waits until the console has shown a word."""
        with trio.fail_after(60):
            while word not in self.stderr.getvalue():
                await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def parent(directory: Path, *, limits: Limits | None = None) -> AsyncIterator[Parent]:
    """Runs a parent until the block ends."""
    config = ParentConfig(
        version=1,
        instance_id="i-0",
        enclave=Enclave(id="app", ingress=Unix(str(directory / "ingress"))),
        listen=Listen(
            public=Tcp("127.0.0.1", 0),
            control=Unix(str(directory / "control")),
            egress=Unix(str(directory / "egress")),
            status=Unix(str(directory / "status")),
            health=Tcp("127.0.0.1", 0),
        ),
        host_parameters={"region": "here"},
        limits=limits or Limits(),
        output=Output(events=directory / "events.jsonl"),
    )
    stderr, ended = io.StringIO(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        await run_parent(config, stderr=stderr, task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        listening = await nursery.start(run)
        yield Parent(config, listening, stderr, ended)
        nursery.cancel_scope.cancel()
