"""Both ends of a TLS connection over a socket pair, with what either end got: a stream, or the error that it raised."""

from dataclasses import dataclass
from typing import Literal

import trio
from OpenSSL import SSL

from runtime.net.tls import TlsError, TlsStream
from tests.support.sockets import socket_pair


@dataclass(slots=True)
class Ends:
    """What the handshake gave at either end. Closes what is open."""

    server: TlsStream | TlsError | None = None
    client: TlsStream | TlsError | None = None

    async def __aenter__(self) -> "Ends":
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in (self.server, self.client):
            if isinstance(end, TlsStream):
                await trio.aclose_forcefully(end)

    def both(self) -> tuple[TlsStream, TlsStream]:
        """Server and client, when the handshake succeeded at both ends."""
        assert isinstance(self.server, TlsStream)
        assert isinstance(self.client, TlsStream)
        return self.server, self.client

    def reasons(self) -> tuple[str | None, str | None]:
        """Why the server and the client refused; None from an end that did not."""
        server, client = (end.reason if isinstance(end, TlsError) else None for end in (self.server, self.client))
        return server, client


async def handshake(
    server: SSL.Context,
    client: SSL.Context,
    *,
    server_name: str = "a.example",
    check_name: bool = True,
    send_buffer: int | None = None,
) -> Ends:
    """Drives both ends of a handshake."""
    near, far = socket_pair(send_buffer=send_buffer)
    ends = Ends()

    async def accept() -> None:
        try:
            ends.server = await TlsStream.accept(far, server)
        except TlsError as error:
            ends.server = error

    async def connect() -> None:
        try:
            ends.client = await TlsStream.connect(near, client, server_name=server_name, check_name=check_name)
        except TlsError as error:
            ends.client = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        nursery.start_soon(connect)
    return ends


def at_most(context: SSL.Context, version: Literal["1.2", "1.3"]) -> SSL.Context:
    """The same context, for no later version."""
    context.set_max_proto_version({"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[version])
    return context
