"""The explicit proxy inside: HTTP CONNECT and SOCKS5 on one loopback port, for addresses and for programs that insist on a proxy.

Runs in the egress worker, on its hub. What a process asks for goes the same road as a connection to a name's own address
(egress_road.py): the same rules decide, the same gate reads the first bytes, the same record is left. A request that cannot be read in
exactly one way asks for nothing and is recorded too.
"""

import socket
from collections.abc import Callable
from typing import Protocol

from runtime.enclave.traffic.egress_connect import CONNECT_FAULTS, connect_answer, decode_connect, head_size
from runtime.enclave.traffic.egress_road import Flow, FlowReason, ProxyFault, Way, tell_last
from runtime.net.hub import IN, Expired, Work
from runtime.net.hub_socket import Plain, receive_exactly, send_all
from runtime.protocol import socks
from runtime.protocol.errors import Malformed

REQUEST_SECONDS = 10.0
"""For a whole request, from its first byte or without any."""

_CHUNK = 4096
_REPLIES: dict[str, int] = {
    "allowed": socks.SUCCEEDED,
    "name_not_found": socks.UNREACHABLE,
    "unreachable": socks.UNREACHABLE,
    "refused": socks.REFUSED,
    "timeout": socks.EXPIRED,
    "parent_unreachable": socks.FAILED,
    "parent_answer": socks.FAILED,
    "too_many_connections": socks.FAILED,
    "socks_command": socks.NO_COMMAND,
    "socks_address": socks.NO_ADDRESS_TYPE,
}


class Carry(Protocol):
    """`Road.carry`."""

    async def __call__(
        self, work: Work, client: Plain, host_untrusted: str, port: int, *, way: Way, tell: Callable[[FlowReason], bytes]
    ) -> None: ...


class EgressProxy:
    """Serves connections of processes, each with one request; `record` gets those that never became one."""

    def __init__(self, carry: Carry, *, record: Callable[[Flow], None]) -> None:
        self._carry = carry
        self._record = record

    async def serve(self, work: Work, client: Plain) -> None:
        """Serves one connection to its end, and closes it. Never raises for what a socket does."""
        begun = work.hub.now
        work.within(REQUEST_SECONDS)
        way: Way = "connect"
        try:
            if await _first_byte(work, client) in _LETTERS:
                host, port = await _connect_request(work, client)
            else:
                way = "socks"
                host, port = await _socks_request(work, client)
        except Malformed as malformed:
            fault = _fault(malformed.reason)
            await tell_last(work, client, _answer(way, fault))
        except Expired:
            fault = "proxy_timeout"
            await tell_last(work, client, _answer(way, fault))
        except OSError:
            fault = "client_gone"
        else:
            await self._carry(work, client, host, port, way=way, tell=connect_answer if way == "connect" else socks_answer)
            return
        client.close()
        self._record(Flow(way=way, host="", port=0, rule=None, reason=fault, seconds=work.hub.now - begun))


_LETTERS = range(0x41, 0x5B)


def socks_answer(reason: str) -> bytes:
    """The reply that says what became of a request; whatever is no failure of the way is the rules' no."""
    return socks.encode_reply(_REPLIES.get(reason, socks.NOT_ALLOWED))


async def _first_byte(work: Work, client: Plain) -> int:
    while True:
        try:
            data = client.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            await work.wait(client.source, IN)
            continue
        if not data:
            raise Malformed("the connection ended before its request", "truncated")
        return data[0]


async def _connect_request(work: Work, client: Plain) -> tuple[str, int]:
    """Reads exactly the head: what a client sends behind it, without waiting for the answer, stays for the tunnel."""
    received = bytearray()
    while True:
        try:
            part = client.socket.recv(_CHUNK, socket.MSG_PEEK)
        except BlockingIOError:
            await work.wait(client.source, IN)
            continue
        if not part:
            raise Malformed("the connection ended inside its request", "truncated")
        before = len(received)
        received += part
        size = head_size(received, before)
        client.socket.recv(size - before if size else len(part))
        if size:
            return decode_connect(bytes(received[:size]))


async def _socks_request(work: Work, client: Plain) -> tuple[str, int]:
    size = socks.methods_size(await receive_exactly(work, client, socks.PREFIX_SIZE))
    socks.require_no_authentication(await receive_exactly(work, client, size) if size else b"")
    await send_all(work, client, socks.encode_method(socks.NO_AUTHENTICATION))
    prefix = await receive_exactly(work, client, socks.REQUEST_PREFIX)
    request = socks.decode_request(prefix + await receive_exactly(work, client, socks.remaining_size(prefix)))
    return request.host, request.port


def _answer(way: Way, fault: ProxyFault) -> bytes:
    """What tells a client of a request that could not be read; nothing where it would not understand."""
    if way == "connect":
        return connect_answer(fault)
    match fault:
        case "socks_method":
            return socks.encode_method(socks.NO_METHOD)
        case "socks_command" | "socks_address":
            return socks_answer(fault)
        case _:
            return b""


def _fault(reason: str) -> ProxyFault:
    for known in (*CONNECT_FAULTS, *socks.SOCKS_FAULTS):
        if reason == known:
            return known
    raise AssertionError(reason)
