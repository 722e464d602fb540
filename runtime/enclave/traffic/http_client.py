"""The client's side of one HTTP connection: bytes in order, read as far as a request needs, written under a deadline."""

import socket
from contextlib import suppress

from runtime.enclave.traffic.http_heads import find_head
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.hub import IN, OUT, Expired, Source, Work
from runtime.net.openssl import ENDED, WANT_READ, Buffer, TlsBroken, TlsSocket

_CLOSE_SECONDS = 2.0
_CLOSE_BYTES = 1 << 20


class ClientGone(Exception):
    """The client cannot be answered any more: it went, or it does not read."""


class Client:
    """Reads and writes one TLS connection of the hub.

    `buffer` holds what was read and not yet taken, of this request and of those behind it; `unsent` what the socket has not taken yet.
    `memory` is shared by all connections: what is in it is used before anything is waited for.
    """

    __slots__ = ("buffer", "has_ended", "memory", "send_timeout", "source", "tls", "unsent", "work")

    def __init__(self, work: Work, tls: TlsSocket, source: Source, memory: Buffer, *, send_timeout: float) -> None:
        self.work = work
        self.tls = tls
        self.source = source
        self.memory = memory
        self.send_timeout = send_timeout
        self.buffer = bytearray()
        self.unsent: bytes | memoryview = b""
        self.has_ended = False

    def read(self, *, many: bool = False) -> int:
        """Reads into `memory`: bytes, or `ENDED` (also noted), `WANT_READ`, `WANT_WRITE`. Raises `ClientGone`.

        With `many` all the records that are there as far as there is room, otherwise at most one.
        """
        try:
            size = self.tls.read_many(self.memory) if many else self.tls.read(self.memory)
        except TlsBroken as error:
            raise ClientGone(str(error)) from None
        if size == ENDED:
            self.has_ended = True
        return size

    async def receive(self) -> bool:
        """Adds what arrives to the buffer; False when the client has ended its side. Raises `ClientGone` and `Expired`."""
        while not self.has_ended:
            size = self.read()
            if size > 0:
                self.buffer += self.memory.view[:size]
                return True
            if size != ENDED:
                await self.work.wait(self.source, IN if size == WANT_READ else OUT)
        return False

    async def receive_head(self, *, timeout: float, line_max: int, size_max: int) -> bytes | None:
        """The next request's head; None when the client ended, or was silent for all of `timeout`, between two requests.

        `timeout` is in seconds for the whole head. Raises `Refusal` and `ClientGone`.
        """
        work, buffer = self.work, self.buffer
        work.within(timeout)
        skipped = False
        seen = 0
        try:
            while True:
                # One empty line before a request is forgiven (RFC 9112 section 2.2): old clients end a body with it.
                if not skipped and len(buffer) >= 2 and buffer.startswith(b"\r\n"):
                    del buffer[:2]
                    skipped = True
                if buffer != b"\r" and (end := find_head(buffer, seen, line_max=line_max, size_max=size_max)):
                    head = bytes(buffer[:end])
                    del buffer[:end]
                    return head
                seen = len(buffer)
                if not await self.receive():
                    if not buffer:
                        return None
                    raise Refusal(400, "incomplete_head", "the connection ended within the head")
        except Expired:
            if not buffer:
                return None
            raise Refusal(408, "head_timeout", f"no complete head within {timeout:g} seconds") from None

    def write(self, data: bytes) -> None:
        """Writes what the socket takes, and keeps the rest as `unsent`, which must be empty before. Raises `ClientGone`."""
        try:
            size = self.tls.write(data)
            if size == len(data):
                return
            self.unsent = memoryview(data)[max(size, 0) :]
            if size > 0:
                self.flush()
        except TlsBroken as error:
            raise ClientGone(str(error)) from None

    def write_view(self, data: memoryview) -> None:
        """As `write`, of a part of `memory`: what is kept is copied."""
        try:
            while data:
                size = self.tls.write_view(data)
                if size < 0:
                    self.unsent = bytes(data)
                    return
                data = data[size:]
        except TlsBroken as error:
            raise ClientGone(str(error)) from None

    def flush(self) -> None:
        """Writes what the socket takes of `unsent`. Raises `ClientGone`."""
        rest = memoryview(self.unsent)
        try:
            while rest:
                size = self.tls.write_view(rest)
                if size < 0:
                    break
                rest = rest[size:]
        except TlsBroken as error:
            raise ClientGone(str(error)) from None
        self.unsent = rest or b""

    async def send(self, data: bytes) -> None:
        """Sends all of `data`. Raises `ClientGone`, also when the client does not read it in time."""
        await self.drain()
        self.write(data)
        await self.drain()

    async def drain(self) -> None:
        """Waits until nothing is unsent. Raises `ClientGone`."""
        try:
            while self.unsent:
                self.work.within(self.send_timeout)
                await self.work.wait(self.source, OUT)
                self.flush()
        except Expired:
            raise ClientGone("it does not read") from None

    async def finish(self) -> None:
        """Ends our side and reads on for a moment: closing over unread bytes would reset the connection."""
        self.tls.shutdown()
        connected, work = self.tls.socket, self.work
        work.within(_CLOSE_SECONDS)
        taken = 0
        with suppress(OSError, Expired):
            connected.shutdown(socket.SHUT_WR)
            while taken < _CLOSE_BYTES:
                try:
                    size = connected.recv_into(self.memory.view)
                except BlockingIOError:
                    await work.wait(self.source, IN)
                    continue
                if not size:
                    return
                taken += size
