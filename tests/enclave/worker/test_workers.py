"""Real workers, forked by the real fork server: they serve, they are nobody, and their death costs only their own connections."""

import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from runtime.enclave.process.workers import Worker
from runtime.enclave.worker.__main__ import UIDS
from runtime.net.endpoint import Tcp, bound, connect, listen
from runtime.net.http import HttpClient, Response
from runtime.protocol.binding import AppBinding, decode_binding
from runtime.protocol.document import parse_document
from runtime.protocol.worker_link import Configure
from tests.enclave.worker.bench import CONFIG, Bench, bench

START_SECONDS = 60
"""For what takes one on an idle machine."""


@pytest.fixture
async def on() -> AsyncGenerator[Bench]:
    async with bench() as made:
        yield made


@asynccontextmanager
async def api(on: Bench) -> AsyncGenerator[tuple[Worker, Tcp]]:
    listener = await listen(Tcp("127.0.0.1", 0))
    at = bound(listener)
    assert isinstance(at, Tcp)
    worker = Worker("api", on.services, lambda: Configure("api", CONFIG, bytes(16), "unix:/x", (), False, 1), [listener])
    async with listener, trio.open_nursery() as nursery:
        with trio.fail_after(START_SECONDS):
            await nursery.start(worker.run)
        yield worker, at
        nursery.cancel_scope.cancel()


async def ask(at: Tcp) -> Response:
    with trio.fail_after(START_SECONDS):
        async with await connect(at) as stream:
            body = json.dumps({"challenge": "aGVsbG8="}).encode()
            return await HttpClient(stream, host="x").request("POST", "/attestation-doc", body=body, max_body=1 << 16)


def pid_of(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process.pid


async def test_a_worker_serves_documents_that_pid_1_fetches_for_it(on: Bench) -> None:
    async with api(on) as (_, at):
        response = await ask(at)
    assert response.status == 200
    assert decode_binding(parse_document(response.body).user_data or b"") == AppBinding(challenge=b"hello")


async def test_a_killed_worker_is_back_on_the_same_socket(on: Bench) -> None:
    async with api(on) as (worker, at):
        for _ in range(3):
            first = pid_of(worker)
            os.kill(first, signal.SIGKILL)
            assert (await ask(at)).status == 200  # the kernel held the connection for the next one
            assert pid_of(worker) != first
    assert on.events().count("worker.ended") == 3


async def test_workers_outlive_their_fork_server_which_is_started_again(on: Bench) -> None:
    async with api(on) as (worker, at):
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        servers = [int(pid) for pid in children if int(pid) != pid_of(worker)]
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        assert (await ask(at)).status == 200
        os.kill(pid_of(worker), signal.SIGKILL)
        assert (await ask(at)).status == 200


async def test_a_worker_that_is_told_to_drain_ends_by_itself(on: Bench) -> None:
    listener = await listen(Tcp("127.0.0.1", 0))
    worker = Worker("api", on.services, lambda: Configure("api", CONFIG, bytes(16), "unix:/x", (), False, 1), [listener])
    with trio.fail_after(START_SECONDS):
        async with listener, trio.open_nursery() as nursery:
            await nursery.start(worker.run)
            worker.drain(0)
    assert worker.finished.is_set()
    assert "worker.ended" not in on.events()


async def test_a_worker_that_dies_once_a_drain_was_asked_is_not_started_again(on: Bench) -> None:
    for dies_first in (True, False):
        listener = await listen(Tcp("127.0.0.1", 0))
        worker = Worker("api", on.services, lambda: Configure("api", CONFIG, bytes(16), "unix:/x", (), False, 1), [listener])
        with trio.fail_after(START_SECONDS):
            async with listener, trio.open_nursery() as nursery:
                await nursery.start(worker.run)
                os.kill(pid_of(worker), signal.SIGKILL)
                if dies_first:
                    await on.until("worker.ended")
                    on.journal.clear()
                worker.drain(10)
                await listener.aclose()
        assert worker.finished.is_set()


async def test_a_worker_has_given_up_everything(on: Bench) -> None:
    async with api(on) as (worker, _):
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid_of(worker)}/status").read_text().splitlines() if ":\t" in line
        )
        expected = UIDS["api"] if os.geteuid() == 0 else os.geteuid()
        assert status["Uid"].split() == [str(expected)] * 4
        if os.geteuid() == 0:
            assert status["Gid"].split() == [str(expected)] * 4
            assert status["Groups"].split() == []
            assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
            assert status["NoNewPrivs"] == "1"
        opened = {path.readlink().name for path in Path(f"/proc/{pid_of(worker)}/fd").iterdir()}
        assert not any(name.endswith((".key", ".pem", "nsm")) for name in opened)
        assert Path(f"/proc/{pid_of(worker)}/environ").read_bytes() == b""
