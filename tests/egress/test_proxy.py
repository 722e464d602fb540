"""The explicit proxy over TCP: what CONNECT and SOCKS5 carry, what they are told, and the corpus of which nothing gets out."""

import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.traffic.egress_proxy import REQUEST_SECONDS, EgressProxy
from runtime.enclave.traffic.egress_road import Flow, Road, RoadLimits
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means
from tests.egress.bypasses import CONNECTS, FIRSTS, HOSTS, PORTS, SOCKS, First, Host, Request
from tests.egress.hellos import NAME, hello, sni
from tests.egress.outside import Behaviour, Outside, outside
from tests.egress.policies import policy
from tests.support.hubs import running_hub
from tests.support.sockets import open_descriptors

POLICY = policy()
HELLO = hello(sni(NAME))
GREETING = b"\5\1\0"
STANDS = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONNECT = b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\nUser-Agent: x\r\n\r\n"


@dataclass
class Rig:
    """A proxy to an outside, and what was recorded."""

    parent: Outside
    port: int
    flows: list[Flow]
    recorded: trio.Event

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def flow(self) -> Flow:
        """The one connection, once it has ended."""
        with trio.fail_after(60):
            await self.recorded.wait()
        (flow,) = self.flows
        return flow

    async def said(self, data: bytes) -> bytes:
        """Everything that a client is told that sends `data` and its end."""
        async with await self.connect() as stream:
            with suppress(trio.BrokenResourceError):  # it may have been told and closed already
                await stream.send_all(data)
                await stream.send_eof()
            return await everything(stream)


async def everything(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(60):
        try:
            while data := await stream.receive_some():
                received += data
        except trio.BrokenResourceError:
            pass
    return received


@asynccontextmanager
async def rig(folder: Path, behaviours: Mapping[str, Behaviour] | None = None) -> AsyncGenerator[Rig]:
    flows: list[Flow] = []
    recorded = trio.Event()

    def record(flow: Flow) -> None:
        flows.append(flow)
        recorded.set()

    async with outside(folder, behaviours) as parent, running_hub() as hub:
        with Means() as means:
            road = Road(POLICY, parent.endpoint, means, record=record, limits=RoadLimits())
            listening = socket.create_server(("127.0.0.1", 0))
            accepting = Accepting(hub, listening, EgressProxy(road.carry, record=record).serve, limit=100)
            try:
                yield Rig(parent, listening.getsockname()[1], flows, recorded)
            finally:
                accepting.close()
            with trio.fail_after(60):
                await hub.wait_empty()


def socks_name(name: bytes, port: int) -> bytes:
    return GREETING + b"\5\1\0\3" + bytes([len(name)]) + name + port.to_bytes(2, "big")


SOCKS_STANDS = b"\5\0" + b"\5\0\0\1" + bytes(6)

ASKED = (
    (CONNECT, STANDS, ("api.example.com", 443)),
    (b"CONNECT API.example.com.:443 HTTP/1.0\r\n\r\n", STANDS, ("api.example.com", 443)),
    (b"CONNECT [2001:DB8:1::5]:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", STANDS, ("2001:db8:1::5", 443)),
    (socks_name(b"api.EXAMPLE.com", 443), SOCKS_STANDS, ("api.example.com", 443)),
    (GREETING + b"\5\1\0\4\x20\1\x0d\xb8\0\1" + bytes(9) + b"\5\1\xbb", SOCKS_STANDS, ("2001:db8:1::5", 443)),
    (b"\5\3\0\1\2" + b"\5\1\0\1\x0a\1\2\3\x15\x38", SOCKS_STANDS, ("10.1.2.3", 5432)),
)


@pytest.mark.parametrize(("request_", "told", "asked"), ASKED, ids=range(len(ASKED)))
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_what_is_allowed_is_carried_however_the_request_arrives(
    tmp_path: Path, request_: bytes, told: bytes, asked: tuple[str, int], size: int
) -> None:
    async with rig(tmp_path) as it:
        async with await it.connect() as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = request_ + HELLO
            for index in range(0, len(data), size):
                await stream.send_all(data[index : index + size])
                if size < 10:
                    await trio.testing.wait_all_tasks_blocked()
            await stream.send_eof()
            assert await everything(stream) == told + HELLO
        flow = await it.flow()
        assert (flow.reason, flow.host, flow.port) == ("allowed", *asked)
        assert flow.way == ("connect" if told == STANDS else "socks")
        assert [(each.host, each.port) for each in it.parent.asked] == [asked]
        assert bytes(it.parent.bytes_out) == HELLO


@pytest.mark.parametrize("attempt", [*CONNECTS, *SOCKS], ids=range(len(CONNECTS) + len(SOCKS)))
async def test_no_request_of_the_corpus_gets_a_byte_out_and_each_is_recorded(tmp_path: Path, attempt: Request) -> None:
    async with rig(tmp_path) as it:
        said = await it.said(attempt.data + HELLO)
        assert (await it.flow()).reason == attempt.reason
        assert STANDS not in said
        assert not said.startswith(SOCKS_STANDS)
        assert not it.parent.asked
        assert not it.parent.bytes_out


@pytest.mark.parametrize("attempt", [*HOSTS, *PORTS], ids=range(len(HOSTS) + len(PORTS)))
async def test_no_host_of_the_corpus_is_reached_by_either_way(tmp_path: Path, attempt: Host) -> None:
    as_bytes = attempt.host.encode("utf-8", "surrogateescape")
    requests = [b"CONNECT " + as_bytes + b":" + str(attempt.port).encode() + b" HTTP/1.1\r\n\r\n"]
    if len(as_bytes) < 256 and 0 <= attempt.port <= 65535:
        requests.append(socks_name(as_bytes, attempt.port))
    async with rig(tmp_path) as it:
        for request in requests:
            said = await it.said(request + HELLO)
            assert STANDS not in said
            assert not said.startswith(SOCKS_STANDS)
        assert len(it.flows) == len(requests)
        assert all(flow.reason != "allowed" and flow.ending is None for flow in it.flows)
        assert not it.parent.asked
        assert not it.parent.bytes_out


@pytest.mark.parametrize("attempt", FIRSTS, ids=range(len(FIRSTS)))
@pytest.mark.parametrize("request_", [CONNECT, socks_name(NAME, 443)], ids=["connect", "socks"])
async def test_a_tunnel_to_a_tls_port_speaks_tls_to_that_name_or_nothing(tmp_path: Path, attempt: First, request_: bytes) -> None:
    async with rig(tmp_path) as it:
        await it.said(request_ + attempt.data)
        assert (await it.flow()).reason == attempt.reason
        assert not it.parent.bytes_out


TOLD = (
    ("name_not_found", 502, 4),
    ("unreachable", 502, 4),
    ("refused", 502, 5),
    ("timeout", 504, 6),
    ("forbidden", 403, 2),
)


@pytest.mark.parametrize(("reason", "status", "reply"), TOLD)
async def test_a_client_is_told_what_the_parent_said(tmp_path: Path, reason: Behaviour, status: int, reply: int) -> None:
    async with rig(tmp_path, {"api.example.com": reason}) as it:
        said = await it.said(CONNECT)
        assert said.startswith(f"HTTP/1.1 {status} ".encode())
        assert f'"code": "{reason}"'.encode() in said
        said = await it.said(socks_name(NAME, 443))
        assert said == b"\5\0" + bytes([5, reply, 0, 1]) + bytes(6)
        assert {flow.reason for flow in it.flows} == {reason}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET http://api.example.com/ HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
        (b"CONNECT api.example.com HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 403 "),
        (b"CONNECT api.example.com:443 HTTP/1.1\r\nX: " + b"a" * 9000, b"HTTP/1.1 431 "),
        (b"\5\1\2", b"\5\xff"),
        (GREETING + b"\5\3\0\3\x0fapi.example.com\1\xbb", b"\5\0\5\7"),
        (GREETING + b"\5\1\0\2\x0fapi.example.com\1\xbb", b"\5\0\5\x08"),
        (GREETING + b"\5\1\0\3\x09evil.test\1\xbb", b"\5\0\5\2"),
        (b"\4\1\1\xbb\x0a\1\0\1user\0", b""),
    ],
)
async def test_a_client_is_told_in_its_own_protocol_what_was_wrong(tmp_path: Path, data: bytes, said: bytes) -> None:
    async with rig(tmp_path) as it:
        assert (await it.said(data))[: len(said) or 1] == said


@pytest.mark.parametrize("data", [b"", b"C", CONNECT[:-1], b"\5", b"\5\1", GREETING, GREETING + socks_name(NAME, 443)[3:-1]])
async def test_a_request_that_does_not_end_is_given_up_and_recorded(tmp_path: Path, autojump_clock: MockClock, data: bytes) -> None:
    before = open_descriptors()
    async with rig(tmp_path) as it:
        async with await it.connect() as stream:
            await stream.send_all(data)
            await everything(stream)
        assert (await it.flow()).reason == "proxy_timeout"
        assert trio.current_time() == pytest.approx(REQUEST_SECONDS, abs=1)
        assert not it.parent.asked
        assert (await it.said(data)) is not None
        with trio.fail_after(60):
            while len(it.flows) < 2:
                await trio.testing.wait_all_tasks_blocked()
        assert it.flows[1].reason in {"truncated", "socks_method"}
    assert open_descriptors() == before


def test_the_corpus_of_the_proxy_has_no_attempt_twice() -> None:
    attempts = (*CONNECTS, *SOCKS)
    assert len({attempt.data for attempt in attempts}) == len(attempts) > 80
