"""Ingress at the parent: clients' connections, relayed to the enclave behind a PROXY v2 header (protocol/README.md section 2).

The bytes are TLS between client and enclave; nothing is read of them here. While the enclave does not listen, a client's connection is
closed at once: a client retries better than a queue does. While it drains, new clients are closed before it hears of them.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

from runtime.net.buckets import client_network
from runtime.net.hub import Expired, Work
from runtime.net.hub_relay import Means, relay
from runtime.net.hub_socket import Plain, is_tcp
from runtime.parent.config import Limits
from runtime.protocol.errors import Refused
from runtime.protocol.proxy_header import Address, ProxyHeader, encode_proxy_header


class IngressRelay:
    """Serves clients' connections on a hub. `reachable` is told when the enclave's ingress stops answering and when it does again.

    `is_closing` says whether the enclave takes no new clients.
    """

    def __init__(
        self,
        connect: Callable[[Work], Awaitable[Plain]],
        limits: Limits,
        means: Means,
        *,
        reachable: Callable[[bool], None],
        is_closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._means = means
        self._tell_reachable = reachable
        self._is_closing = is_closing
        self._was_reachable = True
        self._connections: Counter[str] = Counter()  # by address

    async def serve(self, work: Work, client: Plain) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/hub_accept.py), `address_limit` for one too many."""
        if self._is_closing():
            return
        if not is_tcp(client.peer):
            await self._relay(work, client)
            return
        host = client.peer[0]
        key = client_network(host) if ":" in host else host
        if self._connections[key] >= self._limits.ingress_connections_per_address:
            raise Refused("address_limit", f"{key} has {self._connections[key]} connections already")
        self._connections[key] += 1
        try:
            await self._relay(work, client)
        finally:
            self._connections[key] -= 1
            if not self._connections[key]:
                del self._connections[key]

    async def _relay(self, work: Work, client: Plain) -> None:
        header = encode_proxy_header(_header(client))
        work.within(self._limits.connect)
        try:
            enclave = await self._connect(work)
        except (OSError, Expired):
            self._reachable(is_reachable=False)
            raise
        self._reachable(is_reachable=True)
        await relay(work, client, enclave, self._means, first=header, linger=self._limits.linger, idle=self._limits.idle)

    def _reachable(self, *, is_reachable: bool) -> None:
        if is_reachable != self._was_reachable:
            self._was_reachable = is_reachable
            self._tell_reachable(is_reachable)


def _header(client: Plain) -> ProxyHeader:
    """Who connected to what; without addresses (LOCAL) when that was no TCP. Raises OSError when the client is gone already."""
    if not is_tcp(client.peer):
        return ProxyHeader(source=None, destination=None)
    return ProxyHeader(source=_address(client.peer), destination=_address(client.socket.getsockname()))


def _address(name: tuple[str | int, ...]) -> Address:
    host, port = name[:2]
    return str(host).partition("%")[0], int(port)
