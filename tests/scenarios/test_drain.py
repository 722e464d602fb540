"""Drains of a whole system under load: by the operator's command, by SIGTERM to the parent, by SIGTERM to PID 1.

Time is real, for it is processes that take it: deadlines are in seconds, and nothing else is waited for but what is reported.
"""

import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from runtime.net.http import HttpClient
from runtime.net.serve import CONNECTION_ERRORS
from tests.scenarios.machines import free_port, local_api
from tests.scenarios.operated import PATIENCE, Operated, operated

CLIENTS = 200
APP = """
import sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ARRIVED = threading.Condition()
arrived = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # Nobody starts to think before as many requests as are announced are here.
        global arrived
        query = parse_qs(urlsplit(self.path).query)
        seconds, together = float(query["seconds"][0]), int(query["together"][0])
        with ARRIVED:
            arrived += 1
            if arrived == together:
                print(f"{together} in flight", flush=True)
                ARRIVED.notify_all()
            while arrived < together:
                ARRIVED.wait()
        time.sleep(seconds)
        body = f"thought for {seconds:g} s".encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STUBBORN = """
import signal, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    time.sleep(60)
"""


def config(app: int) -> str:
    """A thinking application that comes after a database, behind the ingress."""
    return f"""
version = 1
enclave = {{ id = "drained" }}
tls = {{ names = ["app.test"] }}

[[process]]
name = "database"
command = ["sleep", "3600"]

[[process]]
name = "app"
command = ["python3", "app.py", "{app}"]
ready = {{ tcp = "127.0.0.1:{app}", interval = "100ms", failures = 100 }}
after = ["database"]

[ingress]
mode = "http"
workers = 2
upstream = "tcp:127.0.0.1:{app}"

[ingress.limits]
head_timeout = "60s"
response_timeout = "2m"

{local_api()}
"""


@asynccontextmanager
async def thinking(folder: Path) -> AsyncGenerator[Operated]:
    async with operated(folder, config(free_port()), {"app.py": APP}) as system:
        yield system


async def think(client: HttpClient, seconds: float, *, together: int = 1) -> bytes | None:
    """The answer of a request that takes so long; None when it was cut, or answered for an application that is gone."""
    try:
        answer = await client.request("GET", f"/?seconds={seconds}&together={together}", max_body=1 << 20)
    except CONNECTION_ERRORS:
        return None
    assert answer.status in {200, 502}, answer
    # A drain that was asked for meanwhile takes a moment to be known.
    assert seconds < 2 or answer.header("connection") == "close"
    return answer.body if answer.status == 200 else None


async def drain(system: Operated, way: str, seconds: float) -> int:
    """Asks for a drain; 0 when it was in time, as far as the way tells."""
    match way:
        case "command":
            return await system.command("drain", "--deadline", f"{seconds:g}s")
        case "parent":
            os.kill(system.parent.pid, signal.SIGTERM)
        case _:
            os.kill(system.enclave_pid, signal.SIGTERM)
    return 0


async def is_refused(system: Operated) -> bool:
    """Whether a new client gets no connection, an end before a byte, or 503."""
    try:
        with trio.fail_after(PATIENCE):
            async with system.client() as client:
                return (await client.request("GET", "/?seconds=0&together=0", max_body=1 << 20)).status == 503
    except CONNECTION_ERRORS:
        return True


def seconds_between(first: dict[str, object], last: dict[str, object], key: str = "enclave_unix_ms") -> float:
    begin, end = first[key], last[key]
    assert isinstance(begin, int)
    assert isinstance(end, int)
    return (end - begin) / 1000


@pytest.mark.parametrize("way", ["command", "parent", "first process"])
async def test_of_200_requests_in_flight_none_is_cut_and_the_processes_end_in_order(way: str, tmp_path: Path) -> None:
    answers: list[tuple[float, bytes | None]] = []
    statuses: list[int] = []
    async with thinking(tmp_path) as system:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(system.client()) for _ in range(CLIENTS)]
            async with trio.open_nursery() as nursery:

                async def ask(client: HttpClient, seconds: float) -> None:
                    answers.append((seconds, await think(client, seconds, together=CLIENTS)))

                for number, client in enumerate(clients):
                    nursery.start_soon(ask, client, 0.5 + 2.5 * number / CLIENTS)
                await system.until_said(f"{CLIENTS} in flight")

                async def ask_for_drain() -> None:
                    statuses.append(await drain(system, way, 10))

                nursery.start_soon(ask_for_drain)
                draining = await system.until_state("draining")
                assert await is_refused(system)
        stopped = await system.until_state("stopped", "failed")
        if way == "parent":
            with trio.fail_after(PATIENCE):
                assert await system.parent.wait() == 0
    assert statuses == [0]
    assert len(answers) == CLIENTS
    cut = [seconds for seconds, body in answers if body != f"thought for {seconds:g} s".encode() * 1000]
    assert cut == []
    assert stopped["event"] == "stopped"
    assert 1 < seconds_between(draining, stopped) < 10
    stopping = [event["fields.process"] for event in system.shown("journal", "process_stopping")]
    assert stopping == ["app", "database"]
    assert [event["event"] for event in system.shown("exit")] == ["app", "database"]
    assert {event["signal"] for event in system.shown("exit")} == {signal.SIGTERM}
    lines = [json.loads(event["line"]) for event in system.shown("log", "ingress:requests")]
    assert len([line for line in lines if line["status"] == 200]) >= CLIENTS


async def test_a_request_that_takes_longer_than_the_deadline_is_cut_at_the_deadline_and_not_before(tmp_path: Path) -> None:
    async with thinking(tmp_path) as system, system.client() as client:
        asked = cut = 0.0
        async with trio.open_nursery() as nursery:

            async def wait_in_vain() -> None:
                nonlocal cut
                assert await think(client, 600) is None
                cut = trio.current_time()

            nursery.start_soon(wait_in_vain)
            await system.until_said("1 in flight")
            asked = trio.current_time()
            assert await system.command("drain", "--deadline", "3s") == 0
        draining, stopped = await system.until_state("draining"), await system.until_state("stopped")
        assert cut - asked > 3
        assert 2.9 < seconds_between(draining, stopped) < 6


async def test_a_second_drain_brings_the_deadline_forward(tmp_path: Path) -> None:
    async with thinking(tmp_path) as system, system.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(think, client, 600)
        await system.until_said("1 in flight")
        nursery.start_soon(system.command, "drain", "--deadline", "10m")
        draining = await system.until_state("draining")
        assert await system.command("drain", "--deadline", "1s") == 0
        assert seconds_between(draining, await system.until_state("stopped")) < PATIENCE


async def test_with_nothing_in_flight_the_drain_ends_at_once_even_with_idle_clients(tmp_path: Path) -> None:
    async with thinking(tmp_path) as system, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(system.client()) for _ in range(20)]
        for client in clients:
            answer = await client.request("GET", "/?seconds=0&together=0", max_body=1 << 20)
            assert (answer.status, answer.header("connection")) == (200, None)
        assert await system.command("drain", "--deadline", "10m") == 0
        draining, stopped = await system.until_state("draining"), await system.until_state("stopped")
        assert seconds_between(draining, stopped) < 3  # 0.2 on an idle machine


async def test_an_application_that_ignores_term_is_gone_at_the_deadline(tmp_path: Path) -> None:
    tables = f"""
version = 1
enclave = {{ id = "deaf" }}
tls = {{ names = ["app.test"] }}

[[process]]
name = "app"
command = ["python3", "stubborn.py"]
stop_grace = "10m"

{local_api()}
"""
    async with operated(tmp_path, tables, {"stubborn.py": STUBBORN}) as system:
        await system.until_said("deaf")
        assert await system.command("drain", "--deadline", "2s") == 0
        draining, stopped = await system.until_state("draining"), await system.until_state("stopped")
        assert 1.9 < seconds_between(draining, stopped) < 5
        assert [(event["event"], event["signal"]) for event in system.shown("exit")] == [("app", signal.SIGKILL)]
