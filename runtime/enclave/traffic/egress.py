"""Opens outbound connections through the parent (protocol/README.md section 2). Whether one may be opened is decided before."""

from collections.abc import Awaitable, Callable

import trio

from runtime.net import hub_socket
from runtime.net.endpoint import Endpoint
from runtime.net.exact import receive_exactly
from runtime.net.hub import Work
from runtime.protocol.egress_frames import (
    PREFIX_SIZE,
    Connect,
    RefusalReason,
    Refused,
    decode_answer,
    encode_connect,
    remaining_size,
)


class EgressRefused(Exception):
    """The parent did not connect. `reason` is one of `RefusalReason`: the parent's word, which may be a lie."""

    def __init__(self, host: str, port: int, reason: RefusalReason) -> None:
        super().__init__(f"{host} port {port}: {reason}")
        self.reason = reason


async def open_egress(connect: Callable[[], Awaitable[trio.SocketStream]], host: str, port: int) -> trio.SocketStream:
    """A connection to `port` of `host`, which the caller owns; nothing of what the other end sent was read. The deadline is the caller's.

    `connect` makes a connection to the parent's egress port. Raises `EgressRefused`, `Malformed` for an answer that is none,
    `LocalProtocolError` for a host that is neither name nor address, and what the stream raises.
    """
    frame = encode_connect(Connect(host=host, port=port))
    stream = await connect()
    try:
        await stream.send_all(frame)
        prefix = await receive_exactly(stream, PREFIX_SIZE)
        answer = decode_answer(await receive_exactly(stream, remaining_size(prefix)))
        if isinstance(answer, Refused):
            raise EgressRefused(host, port, answer.reason)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def open_on_hub(work: Work, parent: Endpoint, host: str, port: int) -> hub_socket.Plain:
    """The same for a work of a hub: `parent` is the parent's egress port, the deadline is the work's. Raises `EgressRefused`,
    `Malformed`, `Expired` and OSError."""
    frame = encode_connect(Connect(host=host, port=port))
    plain = await hub_socket.connect(work, parent)
    try:
        await hub_socket.send_all(work, plain, frame)
        prefix = await hub_socket.receive_exactly(work, plain, PREFIX_SIZE)
        answer = decode_answer(await hub_socket.receive_exactly(work, plain, remaining_size(prefix)))
        if isinstance(answer, Refused):
            raise EgressRefused(host, port, answer.reason)
    except BaseException:
        plain.close()
        raise
    return plain
