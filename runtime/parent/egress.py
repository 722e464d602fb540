"""Egress at the parent: one connection of the enclave for each connection to the network (protocol/README.md section 2).

What may be reached is the enclave's measured policy, decided inside; here only the parent's own network is protected (addresses.py).
A name is resolved once and the checked address itself is connected to, so no second answer of a resolver counts.
"""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

import trio

from runtime.net.endpoint import Tcp, connect
from runtime.net.exact import receive_exactly
from runtime.net.relay import relay
from runtime.parent.addresses import Address, is_permitted
from runtime.parent.config import Egress, Limits
from runtime.protocol.egress_frames import (
    PREFIX_SIZE,
    Connect,
    Connected,
    RefusalReason,
    Refused,
    decode_connect,
    encode_answer,
    remaining_size,
)

CONNECT_FRAME_DEADLINE = 10.0
ATTEMPTS_MAX = 6
"""Addresses of one name that are tried, within one deadline."""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of a name, or the one that a text in any of inet_aton's notations means. Raises OSError."""
    # As bytes: Python would put text through IDNA, which raises UnicodeError for a label that is empty or too long.
    found = await trio.socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return [ip_address(str(address[0])) for *_, address in found]


class EgressRelay:
    """Handles connections of the enclave; `refused` is told of each refusal, for the console."""

    def __init__(
        self,
        egress: Egress,
        limits: Limits,
        *,
        refused: Callable[[Connect, RefusalReason], None],
        resolver: Callable[[str, int], Awaitable[Sequence[Address]]] = resolve,
        dial: Callable[[Tcp], Awaitable[trio.SocketStream]] = connect,
    ) -> None:
        self._egress = egress
        self._limits = limits
        self._refused = refused
        self._resolver = resolver
        self._dial = dial

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/serve.py)."""
        with trio.fail_after(CONNECT_FRAME_DEADLINE):
            prefix = await receive_exactly(stream, PREFIX_SIZE)
            request = decode_connect(await receive_exactly(stream, remaining_size(prefix)))
        outcome = await self._open(request)
        if not isinstance(outcome, trio.SocketStream):
            self._refused(request, outcome)
            with trio.fail_after(CONNECT_FRAME_DEADLINE):
                await stream.send_all(encode_answer(Refused(reason=outcome)))
                await stream.send_eof()
            return
        async with outcome:
            with trio.fail_after(CONNECT_FRAME_DEADLINE):
                await stream.send_all(encode_answer(Connected()))
            await relay(stream, outcome, linger=self._limits.linger, idle=self._limits.idle)

    async def _open(self, request: Connect) -> trio.SocketStream | RefusalReason:
        try:
            with trio.fail_after(self._limits.connect):
                return await self._connect(request)
        except trio.TooSlowError:
            return "timeout"

    async def _connect(self, request: Connect) -> trio.SocketStream | RefusalReason:
        try:
            addresses = await self._resolver(request.host, request.port)
        except OSError:
            return "name_not_found"
        if not addresses:
            return "name_not_found"
        permitted = [address for address in dict.fromkeys(addresses) if is_permitted(address, self._egress)]
        if not permitted:
            return "forbidden"
        return await self._first_of(permitted[:ATTEMPTS_MAX], request.port)

    async def _first_of(self, addresses: Sequence[Address], port: int) -> trio.SocketStream | RefusalReason:
        """A connection to the first address that takes one; each gets its share of the time. Else the reason of the last."""
        reason: RefusalReason = "timeout"
        for address in addresses:
            reason = "timeout"
            with trio.move_on_after(self._limits.connect / len(addresses)):
                try:
                    return await self._dial(Tcp(str(address), port))
                except OSError as error:
                    reason = "refused" if _is_refusal(error) else "unreachable"
        return reason


def _is_refusal(error: OSError) -> bool:
    """trio raises a bare OSError from the attempt's own."""
    causes = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else (error.__cause__, error)
    return any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes)
