"""Names and their listeners over real TCP, on this machine's own loopback addresses and on ports that are free."""

import errno
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from itertools import chain
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.init.network import keeping_sockets
from runtime.enclave.traffic.egress_kept import KeptListeners
from runtime.enclave.traffic.egress_listen import FAILURE_KEPT, ListeningNames
from runtime.enclave.traffic.egress_policy import EgressPolicy
from runtime.enclave.traffic.egress_road import Flow, Road, RoadLimits
from runtime.enclave.traffic.event_limit import BURST
from runtime.enclave.traffic.resolver import Unlisted
from runtime.net.hub_relay import Means
from tests.egress.outside import Outside, outside
from tests.egress.policies import policy
from tests.support.hubs import running_hub

Queue = tuple[socket.socket, socket.socket]


def free_ports(count: int) -> list[int]:
    """Loopback ports above 1024 that are free on every address now."""
    opened = [socket.create_server(("", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in opened]
    finally:
        for each in opened:
            each.close()


class Rig:
    """Names that are listened on, of rules with free ports: the loopback addresses are this machine's own."""

    def __init__(self, names: ListeningNames, ports: list[int], parent: Outside, flows: list[Flow], notes: list[str]) -> None:
        self.names, self.ports, self.parent, self.flows, self.notes = names, ports, parent, flows, notes

    def address(self, name: str) -> str:
        address = self.names.address(name)
        assert isinstance(address, IPv4Address), address
        return str(address)

    async def until_flows(self, count: int) -> None:
        with trio.fail_after(60):
            while len(self.flows) < count:
                await trio.sleep(0.01)


@asynccontextmanager
async def listening(
    folder: Path, rules: str, *, count: int = 2, most: int = 100, ports: Sequence[int] = (), queue: Queue | None = None
) -> AsyncGenerator[Rig]:
    """With a `queue`, whose listeners are those of `ports`, the end is that of a worker which is killed."""
    ports = list(ports) or free_ports(count)
    flows: list[Flow] = []
    notes: list[str] = []
    rules_policy: EgressPolicy = policy(rules % tuple(ports))
    async with outside(folder, {"refused.test": "refused"}) as parent, running_hub() as hub:
        with Means() as means:
            road = Road(rules_policy, parent.endpoint, means, record=flows.append, limits=RoadLimits())
            write, read = queue or keeping_sockets()
            kept = KeptListeners(write, read)
            names = ListeningNames(
                hub, rules_policy, road, kept, note=lambda event, fields: notes.append(f"{event} {fields}"), most=most
            )
            try:
                yield Rig(names, ports, parent, flows, notes)
            finally:
                if queue is None:
                    names.close()
                    write.close()
                    read.close()
                else:
                    for _, accepting in chain.from_iterable(names._open.values()):
                        accepting.close()


TWO = """
[egress]
allow = [
  { name = "db.test", ports = [%d] },
  { suffix = "below.test", ports = [%d] },
]
"""


async def test_a_connection_to_the_address_is_one_to_the_name_and_no_other_port_takes_any(tmp_path: Path) -> None:
    async with listening(tmp_path, TWO) as it:
        mine, others = it.ports
        for name, port in (("db.test", mine), ("a.below.test", others), ("b.below.test", others)):
            stream = await trio.open_tcp_stream(it.address(name), port)
            async with stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            for wrong in {mine, others} - {port}:
                with pytest.raises(OSError, match=r"all attempts|refused"):
                    await trio.open_tcp_stream(it.address(name), wrong)
        await it.until_flows(3)
        assert [(each.host, each.port) for each in it.parent.asked] == [
            ("db.test", mine),
            ("a.below.test", others),
            ("b.below.test", others),
        ]


async def test_what_the_parent_refuses_is_a_reset_and_never_a_clean_end(tmp_path: Path) -> None:
    async with listening(tmp_path, '[egress]\nallow = [{ name = "refused.test", ports = [%d] }]', count=1) as it:
        for is_writing in (False, True):
            client = socket.create_connection((it.address("refused.test"), it.ports[0]))
            with client:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
                with pytest.raises(trio.BrokenResourceError) as broken, trio.fail_after(60):
                    await (stream.send_all(b"x" * 10_000_000) if is_writing else stream.receive_some())
                cause = broken.value.__cause__
                assert isinstance(cause, OSError)
                assert cause.errno in (errno.ECONNRESET, errno.EPIPE)
        await it.until_flows(2)
        assert [flow.reason for flow in it.flows] == ["refused", "refused"]


async def test_a_reset_of_the_process_is_handed_on_and_recorded(tmp_path: Path) -> None:
    async with listening(tmp_path, '[egress]\nallow = [{ name = "db.test", ports = [%d] }]', count=1) as it:
        client = await trio.open_tcp_stream(it.address("db.test"), it.ports[0])
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(client)
        await it.until_flows(1)
        assert (it.flows[0].reason, it.flows[0].ending) == ("allowed", "broken")


async def test_a_port_that_a_process_has_taken_is_told_of_and_the_name_has_no_address_while_it_is(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with listening(tmp_path, '[egress]\nallow = [{ suffix = "below.test", ports = [%d] }]', count=1) as it:
        with socket.create_server(("", it.ports[0])):
            for _ in range(3):
                assert it.names.address("a.below.test") == "listen_failed"
        assert it.notes == [f"egress.listen_failed {{'port': {it.ports[0]}, 'errno': 'EADDRINUSE'}}"]
        assert it.names.address("a.below.test") == "listen_failed"
        await trio.sleep(FAILURE_KEPT)
        assert isinstance(it.names.address("a.below.test"), IPv4Address)


async def test_whoever_asks_for_ever_new_names_of_a_taken_port_does_not_fill_the_journal(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with listening(tmp_path, '[egress]\nallow = [{ suffix = "below.test", ports = [%d] }]', count=1) as it:
        with socket.create_server(("", it.ports[0])):
            for number in range(BURST + 100):
                assert it.names.address(f"n{number}.below.test") == "listen_failed"
        assert len(it.notes) == BURST


async def test_names_that_a_process_makes_up_take_no_more_sockets_than_there_may_be(tmp_path: Path) -> None:
    async with listening(tmp_path, TWO, most=5) as it:
        found: list[IPv4Address | Unlisted] = [it.names.address(f"n{number}.below.test") for number in range(10)]
        assert [isinstance(each, IPv4Address) for each in found] == [True] * 4 + [False] * 6
        assert set(found[4:]) == {"names_exhausted"}
        assert it.names.address("n0.below.test") == found[0]


async def test_a_name_has_the_same_address_after_a_restart_whatever_was_asked_before(tmp_path: Path) -> None:
    async with listening(tmp_path, TWO) as it:
        before = [it.address(name) for name in ("db.test", "a.below.test", "b.below.test")]
    async with listening(tmp_path, TWO) as it:
        assert [it.address(name) for name in ("b.below.test", "db.test", "a.below.test")] == [before[2], before[0], before[1]]


async def test_no_process_takes_the_place_of_a_name_when_the_worker_ends_and_the_next_worker_goes_on_there(tmp_path: Path) -> None:
    queue = keeping_sockets()
    with queue[0], queue[1]:
        ports = free_ports(2)
        places: list[tuple[str, int]] = []
        for _ in range(3):
            async with listening(tmp_path, TWO, ports=ports, queue=queue) as it:
                places = [(it.address("db.test"), ports[0]), (it.address("a.below.test"), ports[1])]
            for place in places:
                with pytest.raises(OSError, match="in use"):
                    socket.create_server(place)
        waiting = socket.create_connection(places[1])  # there is no worker now
        async with (
            listening(tmp_path, TWO, ports=ports, queue=queue) as it,
            trio.SocketStream(trio.socket.from_stdlib_socket(waiting)) as stream,
        ):
            await stream.send_all(b"hello")
            with trio.fail_after(60):
                assert await stream.receive_some() == b"hello"
            assert [(each.host, each.port) for each in it.parent.asked] == [("a.below.test", ports[1])]
            it.names.close()
            for place in places:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(place)


async def test_a_name_that_cannot_be_kept_has_no_address(tmp_path: Path) -> None:
    queue = keeping_sockets()
    queue[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    with queue[0], queue[1]:
        async with listening(tmp_path, TWO, queue=queue) as it:
            found = [it.names.address(f"n{number}.below.test") for number in range(10)]
            assert found[-1] == "names_exhausted"
