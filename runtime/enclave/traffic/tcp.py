"""Modes tcp and passthrough: bytes between a client and the customer process, each end handed on as it came.

Runs in an ingress worker, on its hub. In mode `tcp` the client's TLS ends here, in mode `passthrough` in the customer process, which
alone has the key: then nothing of the bytes is read here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from runtime.enclave.traffic.http_pool import greet
from runtime.net.endpoint import Endpoint
from runtime.net.hub import Expired, Work
from runtime.net.hub_relay import End, Means, relay
from runtime.net.hub_socket import connect


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpLimits:
    """Seconds: for the connection to the customer process, for one direction after the other ended, without a byte either way."""

    connect_timeout: float = 5.0
    linger: float = 60.0
    idle: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarder:
    """Carries connections to `upstream`. `ready` tells whether the customer process takes them, `means` are the worker's own."""

    upstream: Endpoint
    ready: Callable[[], bool]
    log: Callable[..., None]
    means: Means
    limits: TcpLimits = field(default_factory=TcpLimits)

    async def carry(self, work: Work, client: End, address: str | None, *, greeting: bytes = b"") -> None:
        """Serves one client to its end, and closes it; `address` is what the parent says of it, `greeting` what the process hears first.

        Never raises for what a socket does.
        """
        try:
            await self._carry(work, client, address, greeting)
        finally:
            client.close()

    async def _carry(self, work: Work, client: End, address: str | None, greeting: bytes) -> None:
        if not self.ready():
            self.log("tcp_refused", asserted_client=address, code="not_ready")
            return
        work.within(self.limits.connect_timeout)
        try:
            upstream = await connect(work, self.upstream)
            await greet(work, upstream, greeting)
        except (OSError, Expired):
            self.log("tcp_refused", asserted_client=address, code="upstream_failed")
            return
        begun = trio.current_time()
        relayed = await relay(work, client, upstream, self.means, linger=self.limits.linger, idle=self.limits.idle)
        self.log(
            "tcp_connection",
            asserted_client=address,
            request_bytes=relayed.left_to_right,
            answer_bytes=relayed.right_to_left,
            code=relayed.ending,
            seconds=trio.current_time() - begun,
        )
