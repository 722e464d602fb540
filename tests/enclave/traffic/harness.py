"""An ingress between a TLS client and a customer process, all three over real sockets, the outer two scripted byte by byte."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeAlias

import h11
import trio
from OpenSSL import SSL

from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.ingress import Ingress, IngressLimits, serve_ingress
from runtime.enclave.traffic.request_log import RequestLog
from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, connect, listen
from runtime.net.serve import CONNECTION_ERRORS, serve
from runtime.net.tls import TlsIdentity, TlsStream, client_context, server_context
from runtime.protocol.proxy_header import ProxyHeader, encode_proxy_header
from tests.enclave.traffic.attesters import ScriptedAttester
from tests.support.certificates import make_ca

HOST = "a.example"
CLIENT = "203.0.113.7"
CONFIG_DIGEST = bytes(range(48))
READ = 64 * 1024
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

Script: TypeAlias = Callable[["Peer"], Awaitable[None]]


@cache
def identity(name: str) -> TlsIdentity:
    """An identity under a root that nobody knows: whom a client believes is not what these tests are about."""
    return make_ca("ingress tests", utc_now()).issue((name,))


class Peer:
    """One end of a connection, with the bytes that were read beyond what was asked for."""

    def __init__(self, stream: TlsStream | trio.SocketStream) -> None:
        self.stream = stream
        self.seen = b""
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    def rest(self) -> bytes:
        """What was read beyond what was asked for."""
        data, self._buffer = self._buffer, b""
        return data

    async def receive(self) -> bytes:
        """Some bytes, or none at the end."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        data = bytes(await self.stream.receive_some(READ))
        self.seen += data
        return data

    async def until(self, marker: bytes) -> bytes:
        """Everything up to `marker`, which is included."""
        data = b""
        while marker not in data:
            more = await self.receive()
            if not more:
                raise AssertionError(f"the stream ended after {data!r}")
            data += more
        end = data.index(marker) + len(marker)
        self._buffer = data[end:] + self._buffer
        return data[:end]

    async def exactly(self, size: int) -> bytes:
        data = self.rest()
        while len(data) < size:
            more = await self.receive()
            if not more:
                raise AssertionError(f"the stream ended after {data!r}")
            data += more
        self._buffer = data[size:]
        return data[:size]

    async def to_end(self) -> bytes:
        """Everything until the other side ends or breaks off."""
        data = b""
        try:
            while more := await self.receive():
                data += more
        except CONNECTION_ERRORS:
            pass
        return data

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a Content-Length or none: status, fields, body."""
        head = await self.until(b"\r\n\r\n")
        status, fields = parse_head(head)
        return status, fields, await self.exactly(int(fields.get("content-length", "0")))


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    assert line.startswith("HTTP/1.1 ")
    fields: dict[str, str] = {}
    for entry in lines:
        name, _, value = entry.partition(":")
        assert name.lower() not in fields
        fields[name.lower()] = value.strip()
    return int(line[9:12]), fields


@dataclass(slots=True, kw_only=True)
class Gate:
    """A running ingress."""

    path: str
    attester: ScriptedAttester
    events: list[tuple[str, dict[str, object]]]
    upstreams: list[Peer]
    readiness: list[bool] = field(default_factory=lambda: [True])
    draining: trio.Event = field(default_factory=trio.Event)
    context: SSL.Context
    request_lines: list[bytes] = field(default_factory=list)
    request_log: RequestLog = field(init=False)

    def __post_init__(self) -> None:
        self.request_log = RequestLog(self.request_lines.append)

    async def raw(self) -> trio.SocketStream:
        """A connection as the parent makes it, before its PROXY header."""
        return await connect(Unix(self.path))

    @asynccontextmanager
    async def client(self, *, source: str | None = CLIENT) -> AsyncGenerator[Peer]:
        """A client whose handshake is done."""
        async with await self.raw() as stream:
            await stream.send_all(proxy_header(source))
            tls = await TlsStream.connect(stream, client_context(None, now=utc_now()), server_name=HOST, check_name=False)
            try:
                yield Peer(tls)
            finally:
                await trio.aclose_forcefully(tls)

    def logged(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.events if name == event]

    @property
    def requests(self) -> list[dict[str, object]]:
        """The lines of the request log."""
        self.request_log.flush()
        return [json.loads(line) for line in b"".join(self.request_lines).splitlines()]


def proxy_header(source: str | None = CLIENT) -> bytes:
    if source is None:
        return encode_proxy_header(ProxyHeader(source=None, destination=None))
    destination = "2001:db8::1" if ":" in source else "198.51.100.1"
    return encode_proxy_header(ProxyHeader(source=(source, 40000), destination=(destination, 443)))


@asynccontextmanager
async def ingress(
    directory: Path,
    script: Script | None,
    *,
    mode: Literal["http", "tcp", "passthrough"] = "http",
    attester: ScriptedAttester | None = None,
    limits: IngressLimits | None = None,
    policy: HttpPolicy | None = None,
    closes_unready: bool = False,
    tells_client: bool = False,
) -> AsyncGenerator[Gate]:
    """An ingress before a customer process that does what `script` says on each connection, or that is not there."""
    gate = Gate(
        path=str(directory / "ingress"),
        attester=attester or ScriptedAttester(),
        events=[],
        upstreams=[],
        context=server_context([identity(HOST)]),
    )

    async def handle(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        gate.upstreams.append(peer)
        assert script is not None
        await script(peer)

    settings = Ingress(
        mode=mode,
        upstream=Unix(str(directory / "app")),
        tls_context=lambda: gate.context,
        attester=gate.attester,
        config_digest=CONFIG_DIGEST,
        ready=lambda: gate.readiness[0],
        log=lambda event, /, **fields: gate.events.append((event, fields)),
        requests=gate.request_log,
        policy=policy or HttpPolicy(),
        closes_unready=closes_unready,
        tells_client=tells_client,
        limits=limits or IngressLimits(),
        draining=gate.draining,
    )
    async with trio.open_nursery() as nursery:
        if script is not None:
            await nursery.start(partial(serve, await listen(Unix(str(directory / "app"))), handle, limit=1000))
        await nursery.start(serve_ingress, await listen(Unix(gate.path)), settings)
        yield gate
        nursery.cancel_scope.cancel()


@dataclass(slots=True)
class App:
    """A customer process that reads with h11, keeps what it understood, and answers 200 with `ok`."""

    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def __call__(self, peer: Peer) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        target, body = b"", b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                self.faults.append(str(error))
                return
            if event is h11.NEED_DATA:
                connection.receive_data(await peer.receive())
            elif isinstance(event, h11.Request):
                target, body = event.method + b" " + event.target, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.requests.append((target, body))
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if target.startswith(b"HEAD ") else b"ok"))
                # h11 is told that the answer was sent, so that it reads the next request.
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            else:
                return


def answering(*answers: bytes, close: bool = False) -> Script:
    """Answers requests without a body, one after the other, with these bytes, then ends or waits."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            await peer.until(b"\r\n\r\n")
            await peer.send(answer)
        if not close:
            await peer.to_end()

    return script
