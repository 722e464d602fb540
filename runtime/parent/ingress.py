"""Ingress at the parent: clients' connections, relayed to the enclave behind a PROXY v2 header (protocol/README.md section 2).

The bytes are TLS between client and enclave; nothing is read of them here. While the enclave does not listen, a client's connection is
closed at once: a client retries better than a queue does. While it drains, new clients are closed before it hears of them.
"""

import socket
from collections.abc import Awaitable, Callable

import trio

from runtime.net.relay import relay
from runtime.parent.config import Limits
from runtime.protocol.proxy_header import Address, ProxyHeader, encode_proxy_header


class IngressRelay:
    """Handles clients' connections. `reachable` is told when the enclave's ingress stops answering and when it does again.

    `is_closing` says whether the enclave takes no new clients.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.SocketStream]],
        limits: Limits,
        *,
        reachable: Callable[[bool], None],
        is_closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._tell_reachable = reachable
        self._is_closing = is_closing
        self._was_reachable = True

    async def handle(self, client: trio.SocketStream) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/serve.py)."""
        if self._is_closing():
            return
        header = encode_proxy_header(_header(client.socket))
        try:
            with trio.fail_after(self._limits.connect):
                enclave = await self._connect()
        except (OSError, trio.TooSlowError):
            self._reachable(is_reachable=False)
            raise
        self._reachable(is_reachable=True)
        async with enclave:
            with trio.fail_after(self._limits.connect):
                await enclave.send_all(header)
            await relay(client, enclave, linger=self._limits.linger, idle=self._limits.idle)

    def _reachable(self, *, is_reachable: bool) -> None:
        if is_reachable != self._was_reachable:
            self._was_reachable = is_reachable
            self._tell_reachable(is_reachable)


def _header(client: trio.socket.SocketType) -> ProxyHeader:
    """Who connected to what; without addresses (LOCAL) when that was no TCP. Raises OSError when the client is gone already."""
    if client.family not in {socket.AF_INET, socket.AF_INET6}:
        return ProxyHeader(source=None, destination=None)
    return ProxyHeader(source=_address(client.getpeername()), destination=_address(client.getsockname()))


def _address(name: tuple[str | int, ...]) -> Address:
    host, port = name[:2]
    return str(host).partition("%")[0], int(port)
