"""The enclave's end of an egress connection: exactly the answer is read, and a refusal has its reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.traffic.egress import EgressRefused, open_egress
from runtime.protocol.egress_frames import Connect, Connected, RefusalReason, Refused, decode_connect, encode_answer, encode_connect
from runtime.protocol.errors import LocalProtocolError, Malformed
from runtime.protocol.framing import encode_frame
from tests.support.sockets import Wire, open_descriptors

CONNECT = encode_connect(Connect(host="example.com", port=443))


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[Wire]:
    """A parent that reads the connect frame, then sends `pieces` one by one and closes its half."""

    async def handle(stream: trio.SocketStream) -> None:
        received = bytearray()
        while len(received) < len(CONNECT):
            received += await stream.receive_some(4096)
        assert decode_connect(bytes(received[4:])) == Connect(host="example.com", port=443)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await stream.send_eof()
        await stream.receive_some(1)

    async with trio.open_nursery() as nursery:
        yield Wire(nursery, handle)
        nursery.cancel_scope.cancel()


async def test_what_follows_the_answer_is_left_for_the_caller() -> None:
    for pieces in (
        [encode_answer(Connected()) + b"220 smtp ready"],
        [bytes([byte]) for byte in encode_answer(Connected()) + b"220 smtp ready"],
    ):
        async with answering(*pieces) as wire, await open_egress(wire.connect, "example.com", 443) as stream:
            received = b""
            async for data in stream:
                received += data
            assert received == b"220 smtp ready"


@pytest.mark.parametrize("reason", get_args(RefusalReason))
async def test_a_refusal_is_raised_with_its_reason(reason: RefusalReason) -> None:
    before = open_descriptors()
    async with answering(encode_answer(Refused(reason=reason))) as wire:
        with pytest.raises(EgressRefused) as caught:
            await open_egress(wire.connect, "example.com", 443)
        assert caught.value.reason == reason
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff",
        b"HTTP/1.1 200 OK\r\n\r\n",
        encode_frame(["connect", {0: "a", 1: 1}]),
        encode_frame(["refused", {0: "because"}]),
        encode_frame([]),
        *(encode_answer(Connected())[:size] for size in range(16)),
    ],
)
async def test_a_parent_that_answers_anything_else_is_malformed(answer: bytes) -> None:
    async with answering(answer) as wire:
        with pytest.raises(Malformed):
            await open_egress(wire.connect, "example.com", 443)


async def test_a_parent_that_never_answers_leaves_no_descriptor_when_the_callers_deadline_passes(autojump_clock: MockClock) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        with pytest.raises(trio.TooSlowError), trio.fail_after(5):
            await open_egress(Wire(nursery, silent).connect, "example.com", 443)
        nursery.cancel_scope.cancel()
    assert open_descriptors() == before


async def test_a_host_that_cannot_be_one_never_reaches_the_parent() -> None:
    async with answering() as wire:
        with pytest.raises(LocalProtocolError):
            await open_egress(wire.connect, "no host", 443)
        assert wire.connections == 0
