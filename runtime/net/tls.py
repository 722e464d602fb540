"""TLS on a socket, as a trio stream that can be closed by halves. OpenSSL reads and writes the socket itself.

There is no memory in between (as in `trio.SSLStream`), so every alert leaves at once, a failed handshake's too. Whom a connection
believes was decided in its context (net/tls_context.py); deadlines are the caller's. OpenSSL writes with write(2): SIGPIPE must be
ignored, as Python does from its start.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from operator import index
from typing import Self, TypeVar, cast

import trio
from cryptography import x509
from OpenSSL import SSL

from runtime.net.tls_context import (
    Expected,
    NoCommonProtocol,
    PrivateKey,
    TlsError,
    TlsIdentity,
    Version,
    as_address,
    client_context,
    server_context,
)

__all__ = ["PrivateKey", "TlsError", "TlsIdentity", "TlsStream", "Version", "client_context", "server_context"]

T = TypeVar("T")

CHUNK = 64 * 1024
"""Bytes that `receive_some` returns at most unless it is told."""

_DISCARD_READS = 16


class TlsStream(trio.abc.HalfCloseableStream):
    """A TLS connection after its handshake; made by `accept` and `connect`, and owner of the socket from then on.

    One task may receive while another sends. An end without close_notify is `trio.BrokenResourceError`: somebody may have cut the
    message short. A send that was cancelled half-way leaves a sending half that is broken. Closing in a cancelled scope (also
    `trio.aclose_forcefully`) leaves out close_notify, so that the peer in its turn knows that something was cut.
    """

    peer_certificate: x509.Certificate | None
    """The peer's leaf; None from a client that sent none."""
    own_certificate: x509.Certificate | None
    """On a server, the leaf of the identity that was chosen for this very connection; None on a client."""
    server_name: str | None
    """What the client asked for: on a server its SNI, in lower case."""
    version: str
    """"1.2" or "1.3"."""
    group: str | None
    """The key exchange's group by OpenSSL's name, for example "X25519MLKEM768"."""
    alpn: str | None
    """The application protocol that was agreed on."""

    def __init__(self, stream: trio.SocketStream, connection: SSL.Connection) -> None:
        self._stream = stream
        self._connection = connection
        self._readable = _Wait(partial(trio.lowlevel.wait_readable, stream.socket))
        self._writable = _Wait(partial(trio.lowlevel.wait_writable, stream.socket))
        self._receiving = _Half("receiving")
        self._sending = _Half("sending")
        self._in_record = False  # OpenSSL holds a record that the socket did not take yet
        self._eof_sent = False

    @classmethod
    async def accept(cls, stream: trio.SocketStream, context: SSL.Context) -> Self:
        """The server's end of a connection, once the handshake is done. Raises `TlsError`; `stream` is closed if it fails."""
        connection = _connection(stream, context, Expected(server_name=None))
        connection.set_accept_state()
        tls = cls(stream, connection)
        await tls._open()
        name = connection.get_servername()
        tls.server_name = None if name is None else name.decode("ascii", "replace").lower()
        identity: TlsIdentity = connection.get_context().get_app_data()
        tls.own_certificate = identity.chain[0]
        return tls

    @classmethod
    async def connect(cls, stream: trio.SocketStream, context: SSL.Context, *, server_name: str, check_name: bool = True) -> Self:
        """The client's end, once the server proved that its certificate is for `server_name` (a DNS name or an IP address).

        Raises `TlsError`; `stream` is closed if it fails. Without `check_name` any name will do, for a caller that knows the key.
        """
        expected = Expected(server_name=server_name if check_name else None)
        connection = _connection(stream, context, expected)
        connection.set_connect_state()
        if as_address(server_name) is None:
            connection.set_tlsext_host_name(server_name.encode("ascii"))
        tls = cls(stream, connection)
        await tls._open()
        tls.server_name = server_name
        tls.own_certificate = None
        return tls

    def exporter(self, label: bytes, context: bytes, size: int = 32) -> bytes:
        """`size` bytes that only the two ends of this connection know (RFC 5705; RFC 8446 section 7.5)."""
        return self._connection.export_keying_material(label, size, context)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream`; b"" after the peer's close_notify."""
        size = CHUNK if max_bytes is None else index(max_bytes)
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            return await self._run(self._receiving, partial(self._receive, size))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream`."""
        with self._sending:
            self._require_no_eof()
            view = memoryview(data)
            sent = 0

            def attempt() -> None:
                nonlocal sent
                while sent < len(view):
                    self._in_record = True
                    sent += self._connection.send(view[sent : sent + CHUNK])
                    self._in_record = False

            try:
                await self._run(self._sending, attempt)
            finally:
                self._sending.is_broken |= self._in_record

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream`."""
        with self._sending:
            self._require_no_eof()
            self._require_usable(self._sending)
            await self._writable()
            self._require_usable(self._sending)

    async def send_eof(self) -> None:
        """Sends close_notify; what the peer still sends can be received."""
        with self._sending:
            if self._eof_sent:
                await trio.lowlevel.checkpoint()
                return
            await self._run(self._sending, self._connection.shutdown)
            self._eof_sent = True

    async def aclose(self) -> None:
        """Sends close_notify if the socket takes it at once, and closes the socket."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._is_open and not (self._eof_sent or self._sending.is_broken or self._in_record):
                with suppress(SSL.Error):
                    self._connection.shutdown()
        finally:
            await self._stream.aclose()

    @property
    def _is_open(self) -> bool:
        """OpenSSL knows the descriptor's number only: touching it after the close could be another connection's data."""
        return self._stream.socket.fileno() >= 0

    def _require_no_eof(self) -> None:
        if self._eof_sent:
            raise trio.ClosedResourceError("the end was sent")

    def _require_usable(self, half: "_Half") -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("this stream was closed")
        if half.is_broken:
            raise trio.BrokenResourceError(f"{half.name} broke before")

    def _receive(self, size: int) -> bytes:
        try:
            return self._connection.recv(size)
        except SSL.ZeroReturnError:
            return b""

    async def _run(self, half: "_Half", attempt: Callable[[], T]) -> T:
        """Tries until the socket lets it through, with the checkpoints and the errors of trio's streams."""
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            self._require_usable(half)
            try:
                result = attempt()
            except SSL.WantReadError:
                await self._readable()
            except SSL.WantWriteError:
                await self._writable()
            except SSL.SysCallError as error:
                half.is_broken = True
                raise trio.BrokenResourceError(f"{half.name}: {error.args[-1]}") from None
            except SSL.Error as error:
                self._receiving.is_broken = self._sending.is_broken = True
                raise trio.BrokenResourceError(f"{half.name}: {_reason(error)}") from None
            else:
                if not waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                return result
            waited = True

    async def _open(self) -> None:
        """The handshake, and what is known after it."""
        try:
            await self._handshake()
            self.peer_certificate = _peer_certificate(self._connection)
        except TlsError:
            _let_the_alert_arrive(self._stream.socket)
            await trio.aclose_forcefully(self._stream)
            raise
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        self.version = self._connection.get_protocol_version_name().removeprefix("TLSv")
        self.group = self._connection.get_group_name()
        self.alpn = self._connection.get_alpn_proto_negotiated().decode("ascii", "replace") or None

    async def _handshake(self) -> None:
        expected: Expected = self._connection.get_app_data()
        await trio.lowlevel.checkpoint()
        while True:
            self._require_usable(self._sending)
            try:
                self._connection.do_handshake()
            except SSL.WantReadError:
                await self._readable()
            except SSL.WantWriteError:
                await self._writable()
            except SSL.SysCallError as error:
                raise TlsError("tls_closed", f"the peer ended the handshake: {error.args[-1]}") from None
            except NoCommonProtocol:
                raise TlsError("tls_alpn", "the client offers no application protocol that is served here") from None
            except SSL.Error as error:
                raise TlsError(*(expected.refusal or ("tls_handshake", _reason(error)))) from None
            else:
                break
        if expected.server_name is not None and not expected.leaf_seen:
            raise TlsError("tls_name", "the server's certificate was not checked")


class _Half:
    """One direction of a stream: for one task at a time, and of no use once it broke."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_broken = False
        self._is_busy = False

    def __enter__(self) -> None:
        if self._is_busy:
            raise trio.BusyResourceError(f"another task is {self.name}")
        self._is_busy = True

    def __exit__(self, *_: object) -> None:
        self._is_busy = False


class _Wait:
    """Waits for the socket in one direction, for any task.

    A peer can make reading want to write (it asks for a key update and reads nothing) while a sender waits for the same; trio lets
    one task wait for a descriptor, so the others wait for that one, and all try again.
    """

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        self._wait = wait
        self._is_waiting = False
        self._others = trio.lowlevel.ParkingLot()

    async def __call__(self) -> None:
        if self._is_waiting:
            await self._others.park()
            return
        self._is_waiting = True
        try:
            await self._wait()
        finally:
            self._is_waiting = False
            self._others.unpark_all()


def _connection(stream: trio.SocketStream, context: SSL.Context, expected: Expected) -> SSL.Connection:
    # All that OpenSSL wants of the socket is its descriptor, which trio keeps non-blocking.
    connection = SSL.Connection(context, cast("socket.socket", stream.socket))
    connection.set_app_data(expected)
    return connection


def _peer_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except (ValueError, x509.InvalidVersion):  # the latter is no ValueError
        raise TlsError("tls_certificate", "the peer's certificate cannot be read") from None


def _let_the_alert_arrive(broken: trio.socket.SocketType) -> None:
    """Takes what has come in off the socket: closing over unread bytes resets the connection, which may overtake the alert."""
    with suppress(OSError):
        broken.shutdown(socket.SHUT_WR)
        for _ in range(_DISCARD_READS):
            if not os.read(broken.fileno(), CHUNK):
                return


def _reason(error: SSL.Error) -> str:
    """OpenSSL's own words for an error, never bytes of the peer's."""
    queue = error.args[0] if error.args else ()
    return "; ".join(entry[-1] for entry in queue if entry) or "unknown TLS error"
