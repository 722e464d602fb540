"""Both ends of a TLS connection over a socket pair, with what either end got: a stream, or the error that it raised; and a second one
that resumes the session of the first."""

from dataclasses import dataclass
from typing import Literal

import trio
from OpenSSL import SSL

from runtime.net.tls import TlsError, TlsStream
from runtime.net.tls_context import Expected
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


async def resume(
    server: SSL.Context, client: SSL.Context, first: str, second: str, *, later: SSL.Context | None = None
) -> tuple[TlsStream, Expected]:
    """The server's end of a connection that asks for `second`, with a session made while asking for `first`, and what its client saw.

    The second handshake is with the context `later`, where there is one. A session was resumed when no leaf was seen.
    """
    async with await handshake(server, client, server_name=first) as ends:
        server_end, client_end = ends.both()
        await server_end.send_all(b"x")
        assert await client_end.receive_some() == b"x"
        session = client_end._connection.get_session()
    assert session is not None
    raw, far = socket_pair()
    expected = Expected(server_name=second)
    resumed: list[TlsStream] = []

    async def connect() -> None:
        connection = SSL.Connection(client, raw.socket)  # type: ignore[arg-type]  # only its descriptor is used
        connection.set_app_data(expected)
        connection.set_connect_state()
        connection.set_session(session)
        connection.set_tlsext_host_name(second.encode())
        while True:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(raw.socket)
            else:
                return

    async def accept() -> None:
        resumed.append(await TlsStream.accept(far, later or server))

    async with raw, trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        nursery.start_soon(accept)
    await resumed[0].aclose()
    return resumed[0], expected


def at_most(context: SSL.Context, version: Literal["1.2", "1.3"]) -> SSL.Context:
    """The same context, for no later version."""
    context.set_max_proto_version({"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[version])
    return context
