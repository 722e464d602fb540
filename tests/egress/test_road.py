"""One outbound connection over real sockets: what gets out, what does not, and what its process and the record are told."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.traffic.egress_road import Flow, FlowReason, Road, RoadLimits, Way
from runtime.net.hub import Hub, Work
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain, detached
from tests.egress.bypasses import FIRSTS, HOSTS, PORTS, First, Host
from tests.egress.hellos import NAME, body, hello, message, records, sni
from tests.egress.outside import Behaviour, Outside, outside
from tests.egress.policies import policy
from tests.support.hubs import running_hub
from tests.support.sockets import open_descriptors, socket_pair

POLICY = policy()
HELLO = hello(sni(NAME))


@dataclass
class Rig:
    """A road to an outside, and what it recorded."""

    hub: Hub
    parent: Outside
    road: Road
    flows: list[Flow] = field(default_factory=list)

    def connect(
        self, host: str, port: int, *, way: Way = "direct", tell: Callable[[FlowReason], bytes] | None = None
    ) -> trio.SocketStream:
        """The process's end of a connection that is carried to `host`."""
        near, far = socket_pair()

        async def carry(work: Work, plain: Plain) -> None:
            await self.road.carry(work, plain, host, port, way=way, tell=tell)

        self.hub.start(carry, Plain(self.hub, detached(far)))
        return near

    async def flow(self) -> Flow:
        """The one connection, once it has ended."""
        with trio.fail_after(60):
            await self.hub.wait_empty()
        (flow,) = self.flows
        return flow


@asynccontextmanager
async def rig(
    folder: Path, behaviours: Mapping[str, Behaviour] | None = None, limits: RoadLimits | None = None
) -> AsyncGenerator[Rig]:
    flows: list[Flow] = []
    async with outside(folder, behaviours) as parent, running_hub() as hub:
        with Means() as means:
            road = Road(POLICY, parent.endpoint, means, record=flows.append, limits=limits or RoadLimits())
            yield Rig(hub, parent, road, flows)
            await hub.wait_empty()


async def is_cut_off(stream: trio.SocketStream) -> bool:
    """Whether the process gets an error and nothing else."""
    with trio.fail_after(600):
        try:
            data = await stream.receive_some()
        except trio.BrokenResourceError:
            return True
    return data == b""  # a unix socket has no reset when nothing was left to read: TCP's is in test_listen.py


async def test_what_is_allowed_is_carried_both_ways_and_counted(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        async with it.connect("API.example.com.", 443) as stream:
            await stream.send_all(HELLO + b"and more")
            await stream.send_eof()
            assert b"".join([part async for part in stream]) == HELLO + b"and more"
        flow = await it.flow()
        assert (flow.way, flow.host, flow.port, flow.rule, flow.reason) == ("direct", "api.example.com", 443, 0, "allowed")
        assert (flow.sent, flow.received, flow.ending) == (len(HELLO) + 8, len(HELLO) + 8, "eof")
        assert [(each.host, each.port) for each in it.parent.asked] == [("api.example.com", 443)]


@pytest.mark.parametrize("size", [1, 7, 60])
async def test_a_hello_in_pieces_and_in_many_records_is_passed_on_as_it_came(tmp_path: Path, size: int) -> None:
    sent = records(message(body(sni(NAME))), 40)
    async with rig(tmp_path) as it:
        async with it.connect("api.example.com", 443) as stream:
            for index in range(0, len(sent), size):
                await stream.send_all(sent[index : index + size])
                await trio.lowlevel.checkpoint()
            await stream.send_eof()
            assert b"".join([part async for part in stream]) == sent
        assert bytes(it.parent.bytes_out) == sent


async def test_a_port_without_tls_carries_anything_and_whoever_speaks_first(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        async with it.connect("db.example.net", 5432) as stream:
            await stream.send_all(b"\0\0\0\x08\x04\xd2\x16/")
            assert await stream.receive_some() == b"\0\0\0\x08\x04\xd2\x16/"
        assert (await it.flow()).reason == "allowed"


@pytest.mark.parametrize("attempt", [*HOSTS, *PORTS], ids=range(len(HOSTS) + len(PORTS)))
async def test_no_other_host_is_asked_for_by_a_proxy_and_each_is_recorded(tmp_path: Path, attempt: Host) -> None:
    async with rig(tmp_path) as it:
        async with it.connect(attempt.host, attempt.port, way="connect", tell=str.encode) as stream:
            assert await stream.receive_some() == attempt.reason.encode()
            assert await stream.receive_some() == b""
        flow = await it.flow()
        assert (flow.reason, flow.sent, flow.received, flow.ending) == (attempt.reason, 0, 0, None)
        assert not it.parent.asked
        assert not it.parent.bytes_out


@pytest.mark.parametrize("attempt", FIRSTS, ids=range(len(FIRSTS)))
async def test_no_other_first_bytes_get_out_and_nobody_hears_of_them(tmp_path: Path, attempt: First) -> None:
    async with rig(tmp_path) as it:
        async with it.connect("api.example.com", 443) as stream:
            await stream.send_all(attempt.data)
            await stream.send_eof()
            assert await is_cut_off(stream)
        flow = await it.flow()
        assert (flow.reason, flow.rule, flow.sent) == (attempt.reason, 0, 0)
        assert not it.parent.asked
        assert not it.parent.bytes_out


@pytest.mark.parametrize("attempt", FIRSTS, ids=range(len(FIRSTS)))
async def test_behind_a_proxy_no_other_first_bytes_get_out_either(tmp_path: Path, attempt: First) -> None:
    async with rig(tmp_path) as it:
        async with it.connect("api.example.com", 443, way="socks", tell=lambda reason: b"<" + reason.encode() + b">") as stream:
            assert await stream.receive_some() == b"<allowed>"
            await stream.send_all(attempt.data)
            await stream.send_eof()
            assert await is_cut_off(stream)
        assert (await it.flow()).reason == attempt.reason
        assert it.parent.bytes_out == b""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        *((each, each) for each in ("name_not_found", "unreachable", "refused", "timeout", "forbidden")),
        ("garbage", "parent_answer"),
        ("close", "parent_answer"),
    ],
)
async def test_what_the_parent_says_against_it_is_recorded_and_told(tmp_path: Path, behaviour: Behaviour, reason: str) -> None:
    async with rig(tmp_path, {"db.example.net": behaviour}) as it:
        async with it.connect("db.example.net", 5432) as stream:
            assert await is_cut_off(stream)
        assert (await it.flow()).reason == reason
        it.flows.clear()
        async with it.connect("db.example.net", 5432, way="connect", tell=str.encode) as stream:
            assert await stream.receive_some() == reason.encode()
        assert (await it.flow()).reason == reason


async def test_a_parent_that_is_not_there_or_does_not_answer_costs_that_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with rig(tmp_path, {"db.example.net": "silent"}) as it:
        async with it.connect("db.example.net", 5432) as stream:
            assert await is_cut_off(stream)
        flow = await it.flow()
        assert flow.reason == "timeout"
        assert flow.seconds == pytest.approx(RoadLimits().connect)
        it.flows.clear()
        Path(it.parent.endpoint.path).unlink()
        async with it.connect("db.example.net", 5432) as stream:
            assert await is_cut_off(stream)
        assert (await it.flow()).reason == "parent_unreachable"


async def test_deadlines_end_a_silent_hello_an_idle_connection_and_one_that_lasts_too_long(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    limits = RoadLimits(hello=10, idle=100, total=250)
    async with rig(tmp_path, limits=limits) as it:
        async with it.connect("api.example.com", 443) as stream:
            await stream.send_all(HELLO[:20])
            assert await is_cut_off(stream)
        assert (await it.flow()).reason == "hello_timeout"
        it.flows.clear()
        async with it.connect("db.example.net", 5432) as stream:
            assert await is_cut_off(stream)
        flow = await it.flow()
        assert flow.ending == "idle"
        assert flow.seconds == pytest.approx(100)
        it.flows.clear()
        async with it.connect("db.example.net", 5432) as stream:
            begun = trio.current_time()
            for _ in range(4):
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                await trio.sleep(60)
            assert await is_cut_off(stream)
            assert trio.current_time() - begun == pytest.approx(250, abs=1)
        assert (await it.flow()).ending == "total"


async def test_over_the_cap_a_connection_is_refused_and_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, limits=RoadLimits(connections=2)) as it,
        it.connect("db.example.net", 5432) as one,
        it.connect("db.example.net", 5432) as two,
    ):
        for stream in (one, two):
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        async with it.connect("db.example.net", 5432) as three:
            assert await is_cut_off(three)
        assert [flow.reason for flow in it.flows] == ["too_many_connections"]
        await one.send_all(b"y")
        assert await one.receive_some() == b"y"


async def test_many_connections_leave_no_descriptor_behind(tmp_path: Path) -> None:
    async with rig(tmp_path, {"plain.example": "refused"}) as it:
        counts = []
        for _ in range(2):
            for host, port in (("db.example.net", 5432), ("plain.example", 80), ("evil.test", 1)) * 20:
                async with it.connect(host, port) as stream:
                    await stream.send_eof()
                    await is_cut_off(stream)
            await it.hub.wait_empty()
            while it.parent.open:
                await trio.sleep(0.01)
            counts.append(open_descriptors())
        assert counts[1] <= counts[0]
        assert len(it.flows) == 120
