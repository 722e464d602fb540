"""The connections of ingress mode `http` on one hub: accepted, asked for their PROXY header, and taken through their handshake."""

import os
import socket
from typing import TYPE_CHECKING

import trio

from runtime.enclave.traffic.http_pool import UpstreamPool
from runtime.enclave.traffic.http_proxy import HttpProxy
from runtime.enclave.traffic.public_evidence import PublicEvidence
from runtime.net.hub import IN, OUT, Expired, Hub, Source, Work
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain, receive_exactly
from runtime.net.openssl import WANT_READ, Buffer, TlsSocket
from runtime.net.tls_context import TlsError
from runtime.protocol.errors import Refused
from runtime.protocol.proxy_header import PREFIX_SIZE, parse_proxy_header, remaining_size

if TYPE_CHECKING:
    from runtime.enclave.traffic.ingress import Ingress

LAST_STEP = 1.0
"""Seconds that a client gets for its PROXY header, or for its handshake, once the worker drains."""
_MEMORY = 256 * 1024  # bytes of the buffer that all connections read into
_QUIET = 0.03
_AT_MOST = 0.5


async def serve_http_ingress(
    listener: trio.SocketListener, ingress: "Ingress", *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves until `ingress.draining` is asked and those in flight have ended; owns the listener.

    Then whoever waits in the kernel's queue is accepted first (the socket is shared, so closing it here would leave them waiting for
    nobody) until nobody has come for `_QUIET` seconds, at most `_AT_MOST` in all.
    """
    hub = Hub()
    async with listener, trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        connections = _Connections(hub, ingress)
        accepting = Accepting(
            hub,
            socket.socket(fileno=os.dup(listener.socket.fileno())),
            connections.handle,
            limit=ingress.limits.connections,
            on_error=connections.report,
        )
        nursery.start_soon(connections.proxy.pool.close_unused)
        try:
            task_status.started()
            await ingress.draining.asked.wait()
            hub.hasten()
            with trio.move_on_after(_AT_MOST):
                seen = -1
                while seen != connections.count:
                    seen = connections.count
                    await trio.sleep(_QUIET)
            accepting.close()
            await listener.aclose()
            await hub.wait_empty()
        finally:
            accepting.close()
            connections.proxy.pool.close()
        nursery.cancel_scope.cancel()


class _Connections:
    """What happens to each connection before HTTP."""

    def __init__(self, hub: Hub, ingress: "Ingress") -> None:
        limits = ingress.limits
        self._ingress = ingress
        self.count = 0
        memory = Buffer(_MEMORY)
        self.proxy = HttpProxy(
            pool=UpstreamPool(
                hub,
                ingress.upstream,
                size=limits.http.upstream_idle,
                idle_timeout=limits.http.upstream_idle_timeout,
                connect_timeout=limits.http.connect_timeout,
            ),
            memory=memory,
            means=Means(buffer=memory),
            evidence=PublicEvidence(ingress.attester, config_digest=ingress.config_digest, limits=limits.evidence),
            attestation_path=ingress.attestation_path,
            ready=ingress.ready,
            is_closing=lambda: hub.is_hastened or not ingress.ready(),
            log=ingress.log,
            limits=limits.http,
        )

    def report(self, error: BaseException) -> None:
        """Notes why a connection ended before it could be carried: nothing that the peer wrote."""
        reason = getattr(error, "reason", None)
        self._ingress.log("ingress_ended", code=reason if isinstance(reason, str) else type(error).__name__)

    async def handle(self, work: Work, plain: Plain) -> None:
        """One connection, which the caller closes."""
        self.count += 1
        address = await self._client_address(work, plain)
        assert self._ingress.tls_context is not None
        tls = TlsSocket(plain.socket, self._ingress.tls_context())
        code = await self._handshake(work, plain.source, tls)
        if code is None:
            await self.proxy.serve(work, tls, plain.source, address)
        else:
            self._ingress.log("handshake_failed", client=address, code=code)

    async def _client_address(self, work: Work, plain: Plain) -> str | None:
        """Takes exactly the PROXY header off the socket, so that the TLS records behind it stay where OpenSSL reads them."""
        work.within(self._ingress.limits.proxy_header_timeout, grace=LAST_STEP)
        try:
            prefix = await receive_exactly(work, plain, PREFIX_SIZE)
            size = remaining_size(prefix)
            header = parse_proxy_header(prefix + (await receive_exactly(work, plain, size) if size else b""))
        except Expired:
            raise Refused("proxy_header_timeout", "no PROXY header in time") from None
        return None if header.source is None else header.source[0]

    async def _handshake(self, work: Work, source: Source, tls: TlsSocket) -> str | None:
        """Why the handshake failed; None when it did not."""
        work.within(self._ingress.limits.handshake_timeout, grace=LAST_STEP)
        try:
            while (wanted := tls.handshake()) < 0:
                await work.wait(source, IN if wanted == WANT_READ else OUT)
        except TlsError as error:
            return error.reason
        except Expired:
            return "handshake_timeout"
        return None
