"""Ingress mode `http`: the requests of one client connection, in order, to the customer process or answered here.

Clients are hostile; so is the customer process as far as other people's requests go. A request is judged (http_heads), rebuilt, and
only then handed on; a doubt ends the connection. The attestation path is answered here and never reaches the customer process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Protocol

from runtime.enclave.traffic.http_bodies import Body, body_of
from runtime.enclave.traffic.http_client import Client, ClientGone
from runtime.enclave.traffic.http_exchange import Exchange, ExchangeLimits
from runtime.enclave.traffic.http_headers import identified, request_ids, shared_head
from runtime.enclave.traffic.http_heads import RequestHead, parse_request
from runtime.enclave.traffic.http_pool import PoolLimits, Upstream, UpstreamFailed, UpstreamPool
from runtime.enclave.traffic.public_evidence import PublicEvidence
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.http import Request, Response
from runtime.net.hub import Source, Work
from runtime.net.hub_relay import Means, Tls, relay
from runtime.net.openssl import Buffer, TlsSocket

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})  # RFC 9110 section 9.2.2
_LOGGED_PATH_MAX = 256
# Seconds for a connection's first request, and for one more, once the worker drains: what is on its way is still answered.
_FIRST_GRACE = 1.0
_NEXT_GRACE = 0.1
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Log(Protocol):
    """Takes events by stable names. Fields never hold bodies, queries or header values."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Records one event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Sizes in bytes, times in seconds. `head_timeout` is for a whole head and for the wait before a connection's first one."""

    head_size: int = 16 * 1024
    head_fields: int = 100
    head_timeout: float = 15.0
    keep_alive: float = 60.0
    send_timeout: float = 60.0
    not_ready_retry_after: int = 5
    pool: PoolLimits = field(default_factory=PoolLimits)
    exchange: ExchangeLimits = field(default_factory=ExchangeLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProxy:
    """What all connections share. `is_closing`: whether a client is to be told that its present request was its connection's last.

    `ready` tells whether the customer process takes requests. While it does not, or the worker drains, connections end.
    """

    pool: UpstreamPool
    memory: Buffer
    evidence: PublicEvidence
    attestation_path: str
    ready: Callable[[], bool]
    is_closing: Callable[[], bool]
    log: Log
    means: Means
    limits: HttpLimits = field(default_factory=HttpLimits)
    request_ids: Callable[[], bytes] = field(default_factory=request_ids)

    async def serve(self, work: Work, tls: TlsSocket, source: Source, address: str | None) -> None:
        """Serves one connection; `address` is the client's, None for the parent itself. The caller closes it."""
        client = Client(work, tls, source, self.memory, send_timeout=self.limits.send_timeout)
        try:
            if await _Connection(self, client, address).run():
                await client.finish()
            elif tls.socket.fileno() >= 0:
                tls.shutdown()
        except ClientGone:
            pass  # what was cut off must not look finished, so it gets no close_notify


class _Connection:
    """One client connection."""

    __slots__ = ("_address", "_client", "_head", "_limits", "_proxy", "_raw", "_shared", "_work")

    def __init__(self, proxy: HttpProxy, client: Client, address: str | None) -> None:
        self._proxy = proxy
        self._limits = proxy.limits
        self._client = client
        self._work = client.work
        self._address = address
        # The last head as it came, as it was understood and as it went on: the same bytes mean the same.
        self._raw = b""
        self._head: RequestHead | None = None
        self._shared = b""

    async def run(self) -> bool:
        """Serves requests until one was the last; False when the client was idle for too long, so that nothing can be on its way.

        Raises `ClientGone` when the connection is to be cut instead of ended.
        """
        limits, client = self._limits, self._client
        idle, grace = limits.head_timeout, _FIRST_GRACE
        while True:
            try:
                raw = await client.receive_head(
                    self._raw, idle=idle, grace=grace, timeout=limits.head_timeout, size_max=limits.head_size
                )
                if raw is None:
                    return client.has_ended
                head = self._head
                if raw is not self._raw or head is None:
                    head = parse_request(raw, fields_max=limits.head_fields)
                    self._raw, self._head, self._shared = raw, head, shared_head(head, self._address)
            except Refusal as refusal:
                self._proxy.log("http_refused", client=self._address, status=refusal.response.status, code=refusal.code)
                await self._answer(refusal.response, b"", close=True)
                return True
            if not await self._serve(head):
                return self._client.tls.socket.fileno() >= 0  # a tunnel closes its ends
            idle, grace = limits.keep_alive, _NEXT_GRACE

    async def _serve(self, head: RequestHead) -> bool:
        """Answers one request; whether another may follow it. Raises `ClientGone`."""
        proxy, work = self._proxy, self._work
        body = body_of(head)
        request_id = proxy.request_ids()
        exchange = Exchange(self._client, head, body, self._limits.exchange, proxy.is_closing)
        begun = work.hub.now
        code = "ok"
        answer: Response | None = None
        try:
            try:
                if head.path == proxy.attestation_path:
                    answer = await self._evidence(head)
                else:
                    await self._forward(head, identified(self._shared, request_id), exchange, body)
            except (Refusal, UpstreamFailed) as failure:
                code = failure.code
                if exchange.status is not None:
                    raise ClientGone("its answer cannot be completed") from failure
                answer = failure.response if isinstance(failure, Refusal) else _gateway_error(failure)
            if answer is not None:
                exchange.status = answer.status
                # Bytes of a body that nobody reads may follow, or this worker drains.
                exchange.is_last = (body is not None and not body.complete) or not head.keep_alive or proxy.is_closing()
                await self._answer(answer, head.method, close=exchange.is_last)
        except ClientGone:
            code = "client_gone" if code == "ok" else code
            raise
        finally:
            proxy.log(
                "http_request",
                id=request_id.decode("ascii"),
                client=self._address,
                method=head.method.decode("ascii"),
                path=head.path[:_LOGGED_PATH_MAX],
                status=exchange.status,
                code=code,
                request_bytes=exchange.request_bytes,
                answer_bytes=exchange.answer_bytes,
                seconds=work.hub.now - begun,
            )
        return not exchange.is_last

    async def _evidence(self, head: RequestHead) -> Response:
        request = Request(
            method=head.method.decode("ascii"),
            path=head.path,
            query=head.query.decode("ascii"),
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.fields),
            body=b"",
        )
        self._work.within(float("inf"))
        answer = partial(self._proxy.evidence.answer, request, client=self._address or "local", connection=self._client.tls)
        return await self._work.call(answer)

    async def _forward(self, head: RequestHead, sent: bytes, exchange: Exchange, body: Body | None) -> None:
        """Lets the customer process answer; `sent` is the head as it gets it. Raises `Refusal`, `ClientGone` or `UpstreamFailed`."""
        proxy = self._proxy
        if not proxy.ready():
            raise Refusal(503, "not_ready", "the application is not ready", retry_after=self._limits.not_ready_retry_after)
        if body is not None:
            exchange.require_size(head.length or 0)
        upstream = proxy.pool.take() or await proxy.pool.open(self._work)
        if head.expects_continue:
            upstream = await self._continue(upstream)
        try:
            await self._exchange(exchange, sent, upstream)
        except UpstreamFailed:
            # A connection that was kept may end just when it is used again. Then, and only then, asking twice is harmless.
            if not upstream.was_used or exchange.answered or body is not None or head.method not in _IDEMPOTENT:
                raise
            await self._exchange(exchange, sent, await proxy.pool.open(self._work))

    async def _continue(self, upstream: Upstream) -> Upstream:
        try:
            await self._client.send(_CONTINUE)
        except BaseException:
            upstream.close()
            raise
        return upstream

    async def _exchange(self, exchange: Exchange, sent: bytes, upstream: Upstream) -> None:
        try:
            await exchange.run(upstream, sent)
        except BaseException:
            upstream.close()
            raise
        if exchange.switched:
            await self._tunnel(exchange, upstream)
        elif exchange.keeps_upstream:
            self._proxy.pool.give(upstream)
        else:
            upstream.close()

    async def _tunnel(self, exchange: Exchange, upstream: Upstream) -> None:
        """Bytes both ways until the end, which is the end of both connections."""
        client = self._client
        ends = Tls(client.tls, client.source), upstream.plain
        relayed = await relay(
            self._work, *ends, self._proxy.means, first=bytes(client.buffer), idle=self._limits.exchange.answer_idle
        )
        exchange.request_bytes += len(client.buffer) + relayed.left_to_right
        exchange.answer_bytes += relayed.right_to_left
        client.buffer.clear()
        client.has_ended = True

    async def _answer(self, response: Response, method: bytes, *, close: bool) -> None:
        fields = [*response.headers, ("content-length", str(len(response.body)))]
        if close:
            fields.append(("connection", "close"))
        lines = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            *(f"{name}: {value}" for name, value in fields),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        await self._client.send(head if method == b"HEAD" else head + response.body)


def _gateway_error(failure: UpstreamFailed) -> Response:
    if failure.is_timeout:
        return Refusal(504, "upstream_timeout", "the application did not answer in time").response
    return Refusal(502, "upstream_failed", "the application did not give a usable answer").response
