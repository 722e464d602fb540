"""Egress at the parent: one connection of the enclave for each connection to the network (protocol/README.md section 2).

What may be reached is the enclave's measured policy, decided inside; here only the parent's own network is protected (addresses.py).
A name is resolved once and the checked address itself is connected to, so no second answer of a resolver counts.
"""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

import trio

from runtime.net.endpoint import Tcp
from runtime.net.hub import Expired, Work
from runtime.net.hub_relay import Means, relay
from runtime.net.hub_socket import Plain, connect, receive_exactly, send_all
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
    """Serves connections of the enclave on a hub; `refused` is told of each refusal, for the console."""

    def __init__(
        self,
        egress: Egress,
        limits: Limits,
        means: Means,
        *,
        refused: Callable[[Connect, RefusalReason], None],
        resolver: Callable[[str, int], Awaitable[Sequence[Address]]] = resolve,
        dial: Callable[[Work, Tcp], Awaitable[Plain]] = connect,
    ) -> None:
        self._egress = egress
        self._limits = limits
        self._means = means
        self._refused = refused
        self._resolver = resolver
        self._dial = dial

    async def serve(self, work: Work, enclave: Plain) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/hub_accept.py)."""
        work.within(CONNECT_FRAME_DEADLINE)
        prefix = await receive_exactly(work, enclave, PREFIX_SIZE)
        request = decode_connect(await receive_exactly(work, enclave, remaining_size(prefix)))
        outcome = await self._open(work, request)
        if not isinstance(outcome, Plain):
            self._refused(request, outcome)
            work.within(CONNECT_FRAME_DEADLINE)
            await send_all(work, enclave, encode_answer(Refused(reason=outcome)))
            enclave.end()
            return
        connected = encode_answer(Connected())
        await relay(work, outcome, enclave, self._means, first=connected, linger=self._limits.linger, idle=self._limits.idle)

    async def _open(self, work: Work, request: Connect) -> Plain | RefusalReason:
        work.within(self._limits.connect)
        until = work.deadline
        try:
            addresses = await self._resolve(work, request)
        except Expired:
            return "timeout"
        if not addresses:
            return "name_not_found"
        permitted = [address for address in dict.fromkeys(addresses) if is_permitted(address, self._egress)]
        if not permitted:
            return "forbidden"
        return await self._first_of(work, permitted[:ATTEMPTS_MAX], request.port, until)

    async def _resolve(self, work: Work, request: Connect) -> Sequence[Address]:
        """None for a name that there is not."""
        with suppress(ValueError):
            return [ip_address(request.host)]

        async def attempt() -> Sequence[Address]:
            try:
                return await self._resolver(request.host, request.port)
            except OSError:
                return ()

        return await work.call(attempt)

    async def _first_of(self, work: Work, addresses: Sequence[Address], port: int, until: float) -> Plain | RefusalReason:
        """A connection to the first address that takes one; each gets its share of the time. Else the reason of the last."""
        reason: RefusalReason = "timeout"
        for address in addresses:
            work.deadline = min(until, work.hub.now + self._limits.connect / len(addresses))
            try:
                return await self._dial(work, Tcp(str(address), port))
            except Expired:
                reason = "timeout"
            except OSError as error:
                reason = "refused" if error.errno == errno.ECONNREFUSED else "unreachable"
        return reason
