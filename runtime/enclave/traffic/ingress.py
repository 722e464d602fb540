"""Ingress: what clients send to the public port, from the PROXY header on to the customer process or to evidence.

Runs in an unprivileged worker that holds the TLS keys. The parent moves the bytes and may lie about the client's address, which is
all that its PROXY header says; everything behind that header is between the client and this process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import trio
from OpenSSL import SSL

from runtime.enclave.traffic.attester import Attester
from runtime.enclave.traffic.draining import Draining
from runtime.enclave.traffic.http_ingress import LAST_STEP, serve_http_ingress
from runtime.enclave.traffic.http_proxy import HttpLimits, Log
from runtime.enclave.traffic.public_evidence import DEFAULT_PATH, EvidenceLimits
from runtime.net.endpoint import Endpoint, connect
from runtime.net.exact import receive_exactly
from runtime.net.relay import relay
from runtime.net.serve import serve
from runtime.net.tls import TlsError, TlsStream
from runtime.protocol.errors import Refused
from runtime.protocol.proxy_header import PREFIX_SIZE, parse_proxy_header, remaining_size


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressLimits:
    """Connections at once; seconds for each step (whole steps, so a peer that drips bytes gains nothing) and for a relay of mode tcp."""

    connections: int = 4096
    proxy_header_timeout: float = 5.0
    handshake_timeout: float = 10.0
    connect_timeout: float = 5.0
    relay_linger: float = 60.0
    relay_idle: float | None = None
    http: HttpLimits = field(default_factory=HttpLimits)
    evidence: EvidenceLimits = field(default_factory=EvidenceLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """What a worker serves. `tls_context` gives the context for the next handshake, so that certificates change without a restart.

    It is None in mode `passthrough`. `ready` tells whether the customer process takes connections. In mode `tcp` nobody asks for
    evidence on this port: it carries no HTTP.
    """

    mode: Literal["http", "tcp", "passthrough"]
    upstream: Endpoint
    tls_context: Callable[[], SSL.Context] | None
    attester: Attester
    config_digest: bytes
    ready: Callable[[], bool]
    log: Log
    attestation_path: str = DEFAULT_PATH
    limits: IngressLimits = field(default_factory=IngressLimits)
    draining: Draining = field(default_factory=Draining)


async def serve_ingress(
    listener: trio.abc.Listener[trio.SocketStream],
    ingress: Ingress,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves connections until the listener is closed and those in flight have ended (net.serve); owns the listener.

    `ingress.draining` lets those end soon that have asked for nothing yet.
    """
    if ingress.mode == "http":
        assert isinstance(listener, trio.SocketListener)
        await serve_http_ingress(listener, ingress, task_status=task_status)
        return
    await serve(
        listener,
        partial(_connection, ingress),
        limit=ingress.limits.connections,
        on_error=lambda error: ingress.log("ingress_ended", code=_code(error)),
        task_status=task_status,
    )


async def _connection(ingress: Ingress, stream: trio.SocketStream) -> None:
    with ingress.draining.waiting(ingress.limits.proxy_header_timeout, grace=LAST_STEP) as waiting:
        address = await _client_address(stream)
    if waiting.cancelled_caught:
        raise Refused("proxy_header_timeout", "no PROXY header in time")
    if ingress.mode == "passthrough":
        await _forward(ingress, stream, address)
        return
    assert ingress.tls_context is not None
    tls, code = None, "handshake_timeout"
    with ingress.draining.waiting(ingress.limits.handshake_timeout, grace=LAST_STEP):
        try:
            tls = await TlsStream.accept(stream, ingress.tls_context())
        except TlsError as error:
            code = error.reason
    if tls is None:
        ingress.log("handshake_failed", client=address, code=code)
        return
    try:
        await _forward(ingress, tls, address)
    finally:
        await trio.aclose_forcefully(tls)


async def _client_address(stream: trio.SocketStream) -> str | None:
    """Takes exactly the PROXY header off the stream, so that the TLS records behind it stay where OpenSSL reads them."""
    prefix = await receive_exactly(stream, PREFIX_SIZE)
    header = parse_proxy_header(prefix + await receive_exactly(stream, remaining_size(prefix)))
    return None if header.source is None else header.source[0]


async def _forward(ingress: Ingress, stream: TlsStream | trio.SocketStream, address: str | None) -> None:
    """Modes tcp and passthrough: bytes to the customer process and back, each end handed on as an end."""
    if not ingress.ready():
        ingress.log("tcp_refused", client=address, code="not_ready")
        return
    try:
        with trio.fail_after(ingress.limits.connect_timeout):
            upstream = await connect(ingress.upstream)
    except (OSError, trio.TooSlowError):
        ingress.log("tcp_refused", client=address, code="upstream_failed")
        return
    begun = trio.current_time()
    relayed = await relay(stream, upstream, linger=ingress.limits.relay_linger, idle=ingress.limits.relay_idle)
    ingress.log(
        "tcp_connection",
        client=address,
        request_bytes=relayed.left_to_right,
        answer_bytes=relayed.right_to_left,
        code=relayed.ending,
        seconds=trio.current_time() - begun,
    )


def _code(error: BaseException) -> str:
    """A stable name for what ended a connection before it could be carried: nothing that the peer wrote."""
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, str) else type(error).__name__
