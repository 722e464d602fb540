"""A vsock between a guest and unix sockets: both directions, half-closes, credit, and a guest that lies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from runtime.net.endpoint import Unix, listen
from runtime.simulator.vm.vsock_device import VsockDevice
from runtime.simulator.vm.vsock_packet import NO_RECEIVE, NO_SEND, Operation
from runtime.simulator.vm.vsock_stream import ROOM
from tests.simulator.vm.guest import Guest, VsockGuest

PARENT, OWN = 9001, 443
PORTS = (5000, PARENT)


@dataclass
class Parent:
    """The parent's listener, and the socket of a port of the enclave."""

    listener: trio.SocketListener
    own: str
    ends: list[trio.SocketStream] = field(default_factory=list)


@asynccontextmanager
async def vsock(folder: Path) -> AsyncIterator[tuple[VsockGuest, Parent]]:
    """A device, a guest behind it and a parent before it."""
    device = VsockDevice(lambda port: Unix(str(folder / f"parent-{port}.sock")))
    path = str(folder / "vsock.sock")
    own = folder / "own.sock"
    with trio.fail_after(60):
        async with await listen(Unix(str(folder / f"parent-{PARENT}.sock"))) as listener, trio.open_nursery() as nursery:
            await nursery.start(device.serve, await listen(Unix(path)), {OWN: await listen(Unix(str(own)))})
            guest = await Guest.connected(path, 2)
            parent = Parent(listener, str(own))
            yield VsockGuest(guest), parent
            await guest.leave()
            for end in parent.ends:
                await end.aclose()


async def connected(guest: VsockGuest, parent: Parent, room: int = 1 << 18) -> trio.SocketStream:
    """The parent's end of a connection that the guest made."""
    await guest.send(PORTS, Operation.REQUEST, room=room)
    stream = await parent.listener.accept()
    parent.ends.append(stream)
    answer = await guest.expect(Operation.RESPONSE)
    assert (answer.source_port, answer.destination_port) == (PARENT, 5000)
    assert answer.room == ROOM
    return stream


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(part) async for part in stream])


async def test_a_guest_and_the_parent_each_close_their_half_when_they_have_said_all(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        stream = await connected(guest, parent)
        await guest.send(PORTS, Operation.DATA, b"question")
        await guest.send(PORTS, Operation.SHUTDOWN, flags=NO_SEND)
        assert await read_all(stream) == b"question"
        answer = bytes(range(256)) * 64
        await stream.send_all(answer)
        assert await guest.receive_data(len(answer)) == answer
        await stream.send_eof()
        assert (await guest.expect(Operation.SHUTDOWN)).flags == NO_SEND
        await stream.aclose()
        assert (await guest.expect(Operation.SHUTDOWN)).flags == NO_SEND | NO_RECEIVE
        await guest.send(PORTS, Operation.SHUTDOWN, flags=NO_SEND | NO_RECEIVE)
        await guest.expect(Operation.RESET)


async def test_what_a_guest_sent_before_it_closed_arrives(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        stream = await connected(guest, parent)
        await guest.send(PORTS, Operation.DATA, b"last words")
        await guest.send(PORTS, Operation.SHUTDOWN, flags=NO_SEND | NO_RECEIVE)
        assert await read_all(stream) == b"last words"
        await guest.expect(Operation.RESET)


async def test_a_guest_is_reset_where_nobody_listens(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, _):
        await guest.send((5000, 77), Operation.REQUEST)
        reset = await guest.expect(Operation.RESET)
        assert (reset.source_port, reset.destination_port) == (77, 5000)


async def test_the_parent_reaches_a_port_of_the_guest_and_is_cut_off_where_it_does_not_listen(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        async with await trio.open_unix_socket(parent.own) as client:
            await client.send_all(b"before it is accepted")
            request = await guest.expect(Operation.REQUEST)
            assert request.destination_port == OWN
            ports = (OWN, request.source_port)
            await guest.send(ports, Operation.RESPONSE)
            assert await guest.receive_data(21) == b"before it is accepted"
            await guest.send(ports, Operation.DATA, b"answer")
            assert await client.receive_some() == b"answer"
            await guest.send(ports, Operation.RESET)
            assert await client.receive_some() == b""
        async with await trio.open_unix_socket(parent.own) as client:
            request = await guest.expect(Operation.REQUEST)
            await guest.send((OWN, request.source_port), Operation.RESET)
            assert await client.receive_some() == b""


async def test_a_guest_gets_no_more_than_it_has_room_for(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        stream = await connected(guest, parent, room=10)
        await stream.send_all(b"0123456789abcdef")
        assert await guest.receive_data(10) == b"0123456789"
        await guest.send(PORTS, Operation.CREDIT_REQUEST, room=10, forwarded=0)
        await guest.expect(Operation.CREDIT_UPDATE)  # and no data before it
        await guest.send(PORTS, Operation.CREDIT_UPDATE, room=10, forwarded=6)
        assert await guest.receive_data(6) == b"abcdef"


@pytest.mark.parametrize("forwarded", [1, 2**31, 2**32 - 1])
async def test_a_guest_that_forges_its_counters_gets_no_more_for_it(forwarded: int, tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        stream = await connected(guest, parent, room=4)
        await stream.send_all(b"0123")
        assert await guest.receive_data(4) == b"0123"
        await guest.send(PORTS, Operation.CREDIT_UPDATE, room=4, forwarded=forwarded)
        await stream.send_all(b"45678901")
        expected = min(4, max(0, 4 - ((4 - forwarded) & 0xFFFFFFFF)))
        assert len(await guest.receive_data(expected)) == expected
        await guest.send(PORTS, Operation.CREDIT_REQUEST, room=4, forwarded=forwarded)
        await guest.expect(Operation.CREDIT_UPDATE)


async def test_a_guest_hears_of_room_as_its_bytes_are_read_and_is_reset_when_it_sends_without(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        stream = await connected(guest, parent)
        part = bytes(1 << 16)
        for _ in range(3):
            await guest.send(PORTS, Operation.DATA, part)
        got = 0
        while got < 3 * len(part):
            got += len(await stream.receive_some(1 << 16))
        assert (await guest.expect(Operation.CREDIT_UPDATE)).forwarded > ROOM // 4
        while True:  # nobody reads any more
            await guest.send(PORTS, Operation.DATA, part)
            with trio.move_on_after(0.05):
                packet, _ = await guest.receive()
                if packet.operation == Operation.RESET:
                    break
        assert len(await read_all(stream)) <= 8 * ROOM


@pytest.mark.parametrize("wrong", [{"cids": (17, 3)}, {"cids": (16, 2)}, {"kind": 2}], ids=["its address", "ours", "the type"])
async def test_a_packet_of_somebody_else_is_reset(wrong: dict[str, object], tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, _):
        await guest.send(PORTS, Operation.REQUEST, **wrong)  # type: ignore[arg-type]  # one of several options
        await guest.expect(Operation.RESET)


async def test_what_belongs_to_no_connection_is_reset_and_what_is_no_packet_is_nothing(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        await guest.send_raw(b"short")
        await guest.send_raw(bytes(24) + (999).to_bytes(4, "little") + bytes(16))
        await guest.send(PORTS, Operation.RESET)
        await guest.send(PORTS, Operation.DATA, b"of nothing")
        await guest.expect(Operation.RESET)
        stream = await connected(guest, parent)
        await guest.send(PORTS, Operation.REQUEST)  # once more
        await guest.expect(Operation.RESET)
        assert await read_all(stream) == b""


async def test_connections_end_when_the_machine_does(tmp_path: Path) -> None:
    async with vsock(tmp_path) as (guest, parent):
        stream = await connected(guest, parent)
        assert await guest.guest.ask(11, bytes(8)) == bytes(4) + _next_of(guest)
        assert await read_all(stream) == b""


def _next_of(guest: VsockGuest) -> bytes:
    """How many buffers the device has taken: one, for the response."""
    return (guest.guest.queues[0].seen).to_bytes(4, "little")
