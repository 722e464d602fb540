"""Ingress: what clients send to the public port, from the PROXY header on to the customer process or to evidence.

Runs in an unprivileged worker that holds the TLS keys. The parent moves the bytes and may lie about the client's address, which is
all that its PROXY header says; everything behind that header is between the client and this process.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import trio
from OpenSSL import SSL

from runtime.enclave.traffic.attester import Attester
from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.http_pool import UpstreamPool
from runtime.enclave.traffic.http_proxy import HttpLimits, HttpProxy, Log
from runtime.enclave.traffic.public_evidence import DEFAULT_PATH, EvidenceLimits, PublicEvidence
from runtime.enclave.traffic.request_log import RequestLog
from runtime.enclave.traffic.tcp import Forwarder, TcpLimits
from runtime.net.buckets import client_network
from runtime.net.endpoint import Endpoint
from runtime.net.hub import IN, OUT, Expired, Hub, Source, Work
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means, Tls
from runtime.net.hub_socket import Plain, receive_exactly
from runtime.net.openssl import WANT_READ, Buffer, TlsSocket
from runtime.net.tls_context import TlsError
from runtime.protocol.errors import Refused
from runtime.protocol.proxy_header import PREFIX_SIZE, ProxyHeader, encode_proxy_header, parse_proxy_header, remaining_size

_LAST_STEP = 1.0  # seconds that a client gets for its PROXY header, or for its handshake, once the worker drains
_MEMORY = 256 * 1024  # bytes of the buffer that all connections read into
_QUIET = 0.03  # seconds without a connection after which the kernel's queue counts as empty
_EMPTYING = 0.5  # seconds that this may take, whatever still comes


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressLimits:
    """Connections at once, and of one address; seconds for each step: whole steps, so a peer that drips bytes gains nothing."""

    connections: int = 4096
    connections_per_address: int = 1024
    proxy_header_timeout: float = 5.0
    handshake_timeout: float = 10.0
    tcp: TcpLimits = field(default_factory=TcpLimits)
    http: HttpLimits = field(default_factory=HttpLimits)
    evidence: EvidenceLimits = field(default_factory=EvidenceLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """What a worker serves. `tls_context` gives the context for the next handshake, so that certificates change without a restart.

    It is None in mode `passthrough`. `ready` tells whether the customer process takes connections; with `closes_unready` none is served
    while it does not. With `tells_client` the process hears from each connection first whose it is (PROXY v2). In mode `tcp` nobody
    asks for evidence on this port: it carries no HTTP. Once `draining` is set nothing new begins. `requests` is None where they are not
    logged.
    """

    mode: Literal["http", "tcp", "passthrough"]
    upstream: Endpoint
    tls_context: Callable[[], SSL.Context] | None
    attester: Attester
    config_digest: bytes
    ready: Callable[[], bool]
    log: Log
    requests: RequestLog | None = None
    closes_unready: bool = False
    tells_client: bool = False
    policy: HttpPolicy = field(default_factory=HttpPolicy)
    attestation_path: str = DEFAULT_PATH
    limits: IngressLimits = field(default_factory=IngressLimits)
    draining: trio.Event = field(default_factory=trio.Event)


async def serve_ingress(
    listener: trio.SocketListener, ingress: Ingress, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves until `ingress.draining` is set and the connections in flight have ended; owns the listener.

    Those who have asked for nothing yet are let go soon then. Whoever waits in the kernel's queue is accepted first: the socket is
    shared with PID 1 and other workers, so closing it here would leave them waiting for nobody.
    """
    hub, memory = Hub(), Buffer(_MEMORY)
    with Means(buffer=memory) as means, UpstreamPool(hub, ingress.upstream, ingress.limits.http.pool) as pool:
        async with listener, trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            nursery.start_soon(pool.close_unused)
            connections = _Connections(hub, ingress, memory, means, pool)
            accepting = Accepting(
                hub,
                socket.socket(fileno=os.dup(listener.socket.fileno())),
                connections.handle,
                limit=ingress.limits.connections,
                on_error=connections.report,
            )
            try:
                task_status.started()
                await ingress.draining.wait()
                hub.hasten()
                await _until_quiet(connections)
            finally:
                accepting.close()
            await listener.aclose()
            await hub.wait_empty()
            nursery.cancel_scope.cancel()


async def _until_quiet(connections: "_Connections") -> None:
    with trio.move_on_after(_EMPTYING):
        seen = -1
        while seen != connections.count:
            seen = connections.count
            await trio.sleep(_QUIET)


class _Connections:
    """What happens to each connection: its PROXY header, its handshake, and then what the mode does with it."""

    def __init__(self, hub: Hub, ingress: Ingress, memory: Buffer, means: Means, pool: UpstreamPool) -> None:
        self._hub = hub
        self._ingress = ingress
        self._pool = pool
        self._by_address: dict[str, int] = {}
        self.count = 0
        self._http = HttpProxy(
            memory=memory,
            means=means,
            evidence=PublicEvidence(ingress.attester, config_digest=ingress.config_digest, limits=ingress.limits.evidence),
            attestation_path=ingress.attestation_path,
            ready=ingress.ready,
            is_closing=lambda: hub.is_hastened or not ingress.ready(),
            log=ingress.log,
            requests=ingress.requests,
            limits=ingress.limits.http,
            policy=ingress.policy,
        )
        self._tcp = Forwarder(
            upstream=ingress.upstream, ready=ingress.ready, log=ingress.log, means=means, limits=ingress.limits.tcp
        )

    def report(self, error: BaseException) -> None:
        """Notes why a connection ended before it could be carried: nothing that the peer wrote."""
        reason = getattr(error, "reason", None)
        self._ingress.log("ingress_ended", code=reason if isinstance(reason, str) else type(error).__name__)

    async def handle(self, work: Work, plain: Plain) -> None:
        """One connection, which the caller closes."""
        self.count += 1
        header = await self._proxy_header(work, plain)
        if self._ingress.closes_unready and not self._ingress.ready():
            raise Refused("not_ready", "the application is not ready")
        if header.source is None:
            await self._serve(work, plain, None, header)
            return
        network, counts = client_network(header.source[0]), self._by_address
        count = counts.get(network, 0)
        if count >= self._ingress.limits.connections_per_address:
            raise Refused("too_many_connections", "too many connections from this address")
        counts[network] = count + 1
        try:
            await self._serve(work, plain, header.source[0], header)
        finally:
            counts[network] -= 1
            if not counts[network]:
                del counts[network]

    async def _serve(self, work: Work, plain: Plain, address: str | None, header: ProxyHeader) -> None:
        ingress = self._ingress
        greeting = encode_proxy_header(header) if ingress.tells_client else b""
        if ingress.mode == "passthrough":
            await self._tcp.carry(work, plain, address, greeting=greeting)
            return
        assert ingress.tls_context is not None
        tls = TlsSocket(plain.socket, ingress.tls_context())
        code = await self._handshake(work, plain.source, tls)
        if code is not None:
            ingress.log("handshake_failed", asserted_client=address, code=code)
        elif ingress.mode == "tcp":
            await self._tcp.carry(work, Tls(tls, plain.source), address, greeting=greeting)
        elif greeting:  # what a connection to the process began with holds for all that is sent on it
            with UpstreamPool(self._hub, ingress.upstream, ingress.limits.http.pool, greeting=greeting) as own:
                await self._http.serve(work, tls, plain.source, address, own)
        else:
            await self._http.serve(work, tls, plain.source, address, self._pool)

    async def _proxy_header(self, work: Work, plain: Plain) -> ProxyHeader:
        """Takes exactly the PROXY header off the socket, so that the TLS records behind it stay where OpenSSL reads them."""
        work.within(self._ingress.limits.proxy_header_timeout, grace=_LAST_STEP)
        try:
            prefix = await receive_exactly(work, plain, PREFIX_SIZE)
            size = remaining_size(prefix)
            return parse_proxy_header(prefix + (await receive_exactly(work, plain, size) if size else b""))
        except Expired:
            raise Refused("proxy_header_timeout", "no PROXY header in time") from None

    async def _handshake(self, work: Work, source: Source, tls: TlsSocket) -> str | None:
        """Why the handshake failed; None when it did not."""
        work.within(self._ingress.limits.handshake_timeout, grace=_LAST_STEP)
        try:
            while (wanted := tls.handshake()) < 0:
                await work.wait(source, IN if wanted == WANT_READ else OUT)
        except TlsError as error:
            return error.reason
        except Expired:
            return "handshake_timeout"
        return None
