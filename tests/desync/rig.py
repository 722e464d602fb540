"""One ingress between a TLS client that sends any bytes and a customer process that keeps every byte it is sent.

A case is over when nothing moves any more: all of it runs in one thread over unix sockets, so there is nothing to wait for but the
tasks themselves. Cases run one after the other, so that whatever arrives belongs to the case, over whichever connection it comes.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random
from traceback import format_exception

import trio
from trio.testing import wait_all_tasks_blocked

from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.ingress import Ingress, serve_ingress
from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, connect, listen
from runtime.net.serve import CONNECTION_ERRORS, serve
from runtime.net.tls import TlsIdentity, TlsStream, client_context, server_context
from runtime.protocol.proxy_header import ProxyHeader, encode_proxy_header
from tests.desync.reading import Doubt, Incomplete, Message, read_request
from tests.enclave.traffic.attesters import ScriptedAttester
from tests.support.certificates import make_ca

SCRIPTED = b"/scripted"
"""The target whose answer is what the rig's script says."""

_READ = 64 * 1024
_SETTLE_SECONDS = 60.0
_SECOND_LOOK = 0.2  # seconds that a case gets when it is not right at the first rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How the customer process answers: these pieces of bytes, one read after the other, and then an end or none.

    `early`: as soon as the head is there. `closes`: the connection ends behind it.
    """

    pieces: tuple[bytes, ...]
    closes: bool = False
    early: bool = False


@dataclass(slots=True)
class Link:
    """A connection to the customer process: what has come over it since the present case began."""

    data: bytearray = field(default_factory=bytearray)
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of a case. `ending` of the client's connection is "open", "closed" (close_notify) or "broken".

    `arrived` are the requests that the customer process read, each with the serial number that its answer carried; `crash` is what
    ended the whole ingress.
    """

    client: str
    received: bytes
    ending: str
    links: tuple[Link, ...]
    arrived: tuple[tuple[int, Message], ...]
    crash: str | None


@cache
def _identity() -> TlsIdentity:
    return make_ca("desync tests", utc_now()).issue(("a.example",))


class Rig:
    """Sends cases and says what was seen."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._context = client_context(None, now=utc_now())
        self._clients = 0
        self._serial = 0
        self._crash: str | None = None
        self._links: list[Link] = []
        self._arrived: list[tuple[int, Message]] = []
        self._script = Script(pieces=())
        self._played = self._is_playing = self._has_played = False

    async def run(
        self,
        pieces: Sequence[bytes],
        *,
        ends: bool = False,
        pause: bool = False,
        script: Script | None = None,
        enough: Callable[[Seen], bool] | None = None,
    ) -> Seen:
        """Sends `pieces` over a new connection, with all at rest between them if there is to be a `pause`, and waits for rest.

        `ends`: the client ends its side. `enough` tells whether what was seen is all right; if not, it is looked at again a little later.
        """
        self._links = [link for link in self._links if not link.ended]
        for link in self._links:
            link.data.clear()
        self._arrived.clear()
        self._script, self._played = script or Script(pieces=()), False
        self._crash = None
        self._clients += 1
        client = f"100.{64 + (self._clients >> 16 & 63)}.{self._clients >> 8 & 255}.{self._clients & 255}"
        received = bytearray()
        ending = ["open"]
        async with trio.open_nursery() as nursery:
            with trio.fail_after(_SETTLE_SECONDS):
                stream = await self._connect(client)
                nursery.start_soon(_receive, stream, received, ending)
                await _send(stream, pieces, ends=ends, pause=pause)

                def seen() -> Seen:
                    links = tuple(Link(bytearray(link.data), link.ended) for link in self._links if link.data)
                    return Seen(
                        client=client,
                        received=bytes(received),
                        ending=ending[0],
                        links=links,
                        arrived=tuple(self._arrived),
                        crash=self._crash,
                    )

                await self._rest()
                result = seen()
                if enough is not None and not enough(result):
                    await trio.sleep(_SECOND_LOOK)
                    result = seen()
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _SETTLE_SECONDS):
            await trio.aclose_forcefully(stream)
            await wait_all_tasks_blocked()
        return result

    async def together(self, clients: Sequence[Sequence[bytes]], random: Random) -> tuple[list[bytes], list[tuple[int, Message]]]:
        """Clients whose pieces are sent in turns drawn from `random`: what each received, and what arrived."""
        self._arrived.clear()
        received = [bytearray() for _ in clients]
        turns = [number for number, pieces in enumerate(clients) for _ in pieces]
        random.shuffle(turns)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(_SETTLE_SECONDS):
                streams = [await self._connect("100.64.0.1") for _ in clients]
                for stream, data in zip(streams, received, strict=True):
                    nursery.start_soon(_receive, stream, data, [""])
                queues = [iter(pieces) for pieces in clients]
                for number in turns:
                    await streams[number].send_all(next(queues[number]))
                await self._rest()
            nursery.cancel_scope.cancel()
        for stream in streams:
            await trio.aclose_forcefully(stream)
        return [bytes(data) for data in received], list(self._arrived)

    async def _connect(self, client: str) -> TlsStream:
        stream = await connect(Unix(self._path))
        header = ProxyHeader(source=(client, 40000), destination=("198.51.100.1", 443))
        await stream.send_all(encode_proxy_header(header))
        return await TlsStream.connect(stream, self._context, server_name="a.example", check_name=False)

    async def ingress(self, settings: Ingress, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The ingress, started again when it dies as its supervisor would: the case that killed it is to be told, and no other."""
        while True:
            listener = await listen(Unix(self._path))
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            try:
                await serve_ingress(listener, settings)
            except ExceptionGroup as error:
                self._crash = "".join(format_exception(error))[-600:]

    async def customer(self, stream: trio.SocketStream) -> None:
        """The customer process: reads with its own reader, answers 200 with a serial number, and ends at the first doubt."""
        link = Link()
        self._links.append(link)
        buffer = bytearray()
        try:
            while data := await stream.receive_some(_READ):
                link.data += data
                buffer += data
                if not await self._serve(stream, buffer):
                    return
        finally:
            link.ended = True

    async def _serve(self, stream: trio.SocketStream, buffer: bytearray) -> bool:
        """Answers the requests that are whole; whether the connection goes on."""
        while buffer:
            try:
                message, end = read_request(bytes(buffer))
            except Doubt:
                return False
            except Incomplete:
                if self._script.early and b"\r\n\r\n" in buffer and not self._played:
                    await self._play(stream)
                return True
            del buffer[:end]
            self._serial += 1
            self._arrived.append((self._serial, message))
            method, target, _ = message.start
            if target != SCRIPTED:
                await stream.send_all(ok(method, self._serial))
                continue
            if not self._played:
                await self._play(stream)
            if self._script.closes:
                return False
        return True

    async def _play(self, stream: trio.SocketStream) -> None:
        self._played = self._is_playing = True
        try:
            for piece in self._script.pieces:
                await stream.send_all(piece)
                await wait_all_tasks_blocked()
        finally:
            self._is_playing, self._has_played = False, True

    async def _rest(self) -> None:
        """Returns when nothing moves. Who plays a script wakes up at the same time, and moves on."""
        while True:
            self._has_played = False
            await wait_all_tasks_blocked()
            if not (self._is_playing or self._has_played):
                return


def ok(method: bytes, serial: int) -> bytes:
    """The customer process's own answer."""
    body = b"%d" % serial
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), b"" if method == b"HEAD" else body)


async def _receive(stream: TlsStream, received: bytearray, ending: list[str]) -> None:
    try:
        while data := await stream.receive_some(_READ):
            received += data
        ending[0] = "closed"
    except CONNECTION_ERRORS:
        ending[0] = "broken"


async def _send(stream: TlsStream, pieces: Sequence[bytes], *, ends: bool, pause: bool) -> None:
    """Sends as much as the other side takes."""
    try:
        for piece in pieces:
            await stream.send_all(piece)
            if pause:
                await wait_all_tasks_blocked()
        if ends:
            await stream.send_eof()
    except CONNECTION_ERRORS:
        pass


@asynccontextmanager
async def running(directory: Path) -> AsyncGenerator[Rig]:
    """A rig whose sockets are in `directory`, with every limit as it is by default, and any name in Host."""
    rig = Rig(str(directory / "ingress"))
    context = server_context([_identity()])
    ingress = Ingress(
        mode="http",
        upstream=Unix(str(directory / "customer")),
        tls_context=lambda: context,
        attester=ScriptedAttester(),
        config_digest=bytes(48),
        ready=lambda: True,
        log=lambda event, /, **fields: None,
        policy=HttpPolicy(checks_host=False),  # that is about names, and these cases are about how they are written
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, await listen(Unix(str(directory / "customer"))), rig.customer, limit=1000))
        await nursery.start(rig.ingress, ingress)
        yield rig
        nursery.cancel_scope.cancel()
