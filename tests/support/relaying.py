"""A relay on a hub between two peers, over TCP, over unix sockets, or with TLS on its left."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import trio

from runtime.net.endpoint import Tcp, bound, connect, listen
from runtime.net.hub import Hub, Work
from runtime.net.hub_relay import Means, Relayed, Tls, relay
from runtime.net.hub_socket import Plain, detached
from runtime.net.openssl import TlsSocket
from runtime.net.tls import TlsStream, client_context, server_context
from tests.support.certificates import make_ca
from tests.support.hubs import running_hub
from tests.support.sockets import socket_pair

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SIDES = ["left", "right"]


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    async with await listen(Tcp("127.0.0.1", 0)) as listener:
        near = await connect(bound(listener))
        return near, await listener.accept()


async def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    await trio.lowlevel.checkpoint()
    return socket_pair()


@dataclass
class Relaying:
    """A relay between the peers `client` and `server`; `result` once it ended."""

    client: trio.abc.HalfCloseableStream
    server: trio.SocketStream
    means: Means
    results: list[Relayed] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)

    async def result(self) -> Relayed:
        with trio.fail_after(60):
            await self.done.wait()
        return self.results[0]

    def sides(self, ends: str) -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
        """Who does something, and who sees it."""
        return (self.client, self.server) if ends == "left" else (self.server, self.client)


Pair = Callable[[], Awaitable[tuple[trio.SocketStream, trio.SocketStream]]]


@asynccontextmanager
async def relaying(
    pair: Pair = tcp_pair,
    *,
    is_tls: bool = False,
    means: Means | None = None,
    first: bytes = b"",
    linger: float = 60.0,
    idle: float | None = None,
) -> AsyncIterator[Relaying]:
    client, near_client = await pair()
    near_server, server = await pair()
    async with running_hub() as hub:
        with means or Means() as shared:
            left, outer = (await tls_ends(hub, near_client, client)) if is_tls else (Plain(hub, detached(near_client)), client)
            running = Relaying(outer, server, shared)

            async def run(work: Work) -> None:
                right = Plain(hub, detached(near_server))
                running.results.append(await relay(work, left, right, shared, first=first, linger=linger, idle=idle))
                running.done.set()

            hub.start(run)
            yield running
            for stream in (running.client, running.server):
                await trio.aclose_forcefully(stream)


async def tls_ends(hub: Hub, near: trio.SocketStream, far: trio.SocketStream) -> tuple[Tls, TlsStream]:
    """A TLS connection after its handshake: the server's end on the hub, the client's as a stream."""
    ca = make_ca("root", NOW)
    plain = Plain(hub, detached(near))
    connection = TlsSocket(plain.socket, server_context([ca.issue(("a.example",))]))
    streams: list[TlsStream] = []

    async def handshake() -> None:
        streams.append(await TlsStream.connect(far, client_context([ca.certificate], now=NOW), server_name="a.example"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake)
        while connection.handshake() != 1:
            await trio.lowlevel.wait_readable(plain.socket)
    return Tls(connection, plain.source), streams[0]


KINDS = pytest.mark.parametrize(
    ("pair", "is_tls"), [(tcp_pair, False), (unix_pair, False), (tcp_pair, True)], ids=["tcp", "unix", "tls"]
)


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def is_reset(stream: trio.abc.HalfCloseableStream) -> bool:
    try:
        return bool(await stream.receive_some(1)) and False
    except trio.BrokenResourceError:
        return True
