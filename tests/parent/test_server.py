"""The whole parent over unix sockets and TCP, as a process would run it: ready, relaying, status, signals."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from runtime.enclave.link import ParentLink
from runtime.enclave.traffic.egress import EgressRefused, open_egress
from runtime.net.endpoint import Endpoint, Unix, Vsock, connect, listen
from runtime.parent.config import Limits
from runtime.parent.server import only_from
from tests.parent.running import parent


def link_to(endpoint: Endpoint, drains: list[int]) -> ParentLink:
    return ParentLink(lambda: connect(endpoint), boot_id=bytes(16), on_drain=drains.append, metrics=lambda: {"a": 1})


async def test_an_enclave_and_a_client_meet_through_the_parent(tmp_path: Path) -> None:
    drains: list[int] = []
    async with parent(tmp_path) as running, trio.open_nursery() as nursery:
        link = link_to(running.listening.control, drains)
        link.send_state("ready")
        welcome = await link.connect()
        assert (welcome.instance_id, dict(welcome.host_parameters), welcome.ticket) == ("i-0", {"region": "here"}, None)
        nursery.start_soon(link.run)
        await link.flush()
        with pytest.raises(EgressRefused) as caught:
            await open_egress(lambda: connect(running.listening.egress), "169.254.169.254", 80)
        assert caught.value.reason == "forbidden"

        listener = await listen(running.config.enclave.ingress)
        client = await connect(running.listening.public)
        async with listener, client, await listener.accept() as enclave:
            await client.send_all(b"hello")
            await client.send_eof()
            assert b"".join([bytes(data) async for data in enclave])[28:] == b"hello"

        status = json.loads((await running.ask("GET", "/status")).body)
        assert (status["enclave"], status["connected"], status["state"]) == ("app", True, "ready")
        assert status["listening"]["public"] == str(running.listening.public)
        assert json.loads((await running.ask("GET", "/metrics")).body) == {"a": 1}
        assert (await running.ask("POST", "/drain?deadline_ms=5000")).status == 202
        events = json.loads((await running.ask("GET", "/events")).body)["events"]
        assert [event["event"] for event in events] == ["ready", "enclave.booted", "ready", "egress.refused"]
        nursery.cancel_scope.cancel()
    assert drains == [5000]
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert written[: len(events)] == events
    assert {event["event"] for event in written[len(events) :]} <= {"enclave.disconnected"}, "if it was noticed before the end"
    assert len(running.stderr.getvalue().splitlines()) == len(written)


async def test_what_operators_ask_wrongly_is_answered_with_a_problem(tmp_path: Path) -> None:
    async with parent(tmp_path) as running:
        for method, target, status, code in (
            ("GET", "/", 404, "not_found"),
            ("GET", "/drain", 405, "method_not_allowed"),
            ("POST", "/status", 405, "method_not_allowed"),
            ("POST", "/drain", 400, "bad_deadline"),
            ("POST", "/drain?deadline_ms=-1", 400, "bad_deadline"),
            ("POST", "/drain?deadline_ms=99999999999", 400, "bad_deadline"),
            ("POST", "/drain?deadline_ms=1&deadline_ms=2", 400, "bad_deadline"),
            ("POST", "/drain?deadline_ms=1", 503, "enclave_not_connected"),
            ("GET", "/metrics", 503, "enclave_not_connected"),
            ("GET", "/events?after=-1", 400, "bad_query"),
            ("GET", "/events?after=0&wait=31", 400, "bad_query"),
            ("GET", "/events?after=1&after=2", 400, "bad_query"),
            ("GET", "/events?after=", 400, "bad_query"),
        ):
            response = await running.ask(method, target)
            assert (response.status, json.loads(response.body)["code"]) == (status, code)
        status_socket = running.listening.status
        assert isinstance(status_socket, Unix)
        assert Path(status_socket.path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_parent_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    async with parent(tmp_path) as running:
        os.kill(os.getpid(), number)
        with trio.fail_after(60):
            await running.ended.wait()
        with pytest.raises(OSError, match="connect"):
            await connect(running.listening.public)
        assert [line.split()[3] for line in running.stderr.getvalue().splitlines()] == ["ready", "stopping", "stopped"]


async def test_the_command_serves_until_sigterm_and_then_ends_with_status_0(tmp_path: Path) -> None:
    config = tmp_path / "parent.toml"
    config.write_text(f"""
version = 1
instance_id = "i-0"
enclave = {{ id = "app", ingress = "unix:{tmp_path}/ingress" }}
listen = {{ public = "tcp:127.0.0.1:0", control = "unix:{tmp_path}/control", egress = "unix:{tmp_path}/egress" }}
""")
    program = (
        "import argparse, sys\n"
        "from runtime.commands.parent import add_parser\n"
        "parser = argparse.ArgumentParser()\n"
        "add_parser(parser.add_subparsers())\n"
        "arguments = parser.parse_args(['parent', sys.argv[1], '--json'])\n"
        "sys.exit(arguments.handler(arguments))\n"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", program, str(config)], stderr=subprocess.PIPE)
    stderr = process.stderr
    assert stderr is not None
    with trio.fail_after(30):
        async with stderr:
            ready = json.loads(await stderr.receive_some())
            assert ready["event"] == "ready"
            assert ready["control"] == f"unix:{tmp_path}/control"
            process.send_signal(signal.SIGTERM)
            rest = b"".join([bytes(data) async for data in stderr])
        assert await process.wait() == 0
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopping", "stopped"]


async def test_connections_in_flight_may_end_after_a_signal_and_new_ones_are_refused(tmp_path: Path) -> None:
    async with parent(tmp_path) as running:
        listener = await listen(running.config.enclave.ingress)
        client = await connect(running.listening.public)
        async with listener, client, await listener.accept() as enclave:
            os.kill(os.getpid(), signal.SIGTERM)
            while "stopping" not in running.stderr.getvalue():
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="connect"):
                await connect(running.listening.public)
            await enclave.send_all(b"the answer")
            await enclave.send_eof()
            assert b"".join([bytes(data) async for data in client]) == b"the answer"
            assert not running.ended.is_set()
            await client.send_eof()
            with trio.fail_after(60):
                await running.ended.wait()


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with parent(tmp_path, limits=replace(Limits(), stop_grace=3600.0)) as running:
        listener = await listen(running.config.enclave.ingress)
        client = await connect(running.listening.public)
        async with listener, client, await listener.accept():
            os.kill(os.getpid(), signal.SIGTERM)
            while "stopping" not in running.stderr.getvalue():
                await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
            with trio.fail_after(60):
                await running.ended.wait()


async def test_a_hostile_enclave_ends_its_connection_and_nothing_else(tmp_path: Path) -> None:
    async with parent(tmp_path) as running:
        for endpoint in (running.listening.control, running.listening.egress):
            for _ in range(50):
                async with await connect(endpoint) as stream:
                    await stream.send_all(b"\xff\xff\xff\xff")
                    assert await stream.receive_some(1) == b""
        link = link_to(running.listening.control, [])
        await link.connect()
        await link.aclose()
        errors = [line for line in running.stderr.getvalue().splitlines() if "error" in line]
        assert 2 <= len(errors) <= 80
        assert all("reason=too_large" in line for line in errors)


class FromVsock:
    """Stands in for a stream that was accepted on a vsock listener, which not every machine has."""

    def __init__(self, cid: int) -> None:
        self.socket = self
        self.family = socket.AF_VSOCK
        self.cid = cid

    def getpeername(self) -> tuple[int, int]:
        return self.cid, 1024


async def test_only_the_enclaves_own_cid_is_served_on_vsock() -> None:
    served: list[object] = []
    foreign: list[int] = []

    async def handler(stream: object) -> None:
        await trio.lowlevel.checkpoint()
        served.append(stream)

    handle = only_from(Vsock(16, 443), handler, foreign=foreign.append)
    own, other = FromVsock(16), FromVsock(17)
    for stream in (own, other):
        await handle(stream)  # type: ignore[arg-type]  # stands in for a trio.SocketStream
    assert served == [own]
    assert foreign == [17]
