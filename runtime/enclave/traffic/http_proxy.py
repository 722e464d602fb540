"""Ingress mode `http`: the requests of one client connection, in order, to the customer process or answered here.

Clients are hostile; so is the customer process as far as other people's requests go. A request is judged (http_heads), rebuilt, and
only then handed on; a doubt ends the connection. The attestation path is answered here and never reaches the customer process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Protocol

import trio

from runtime.enclave.traffic.http_bodies import Body, body_of
from runtime.enclave.traffic.http_client import Client, ClientGone
from runtime.enclave.traffic.http_exchange import Exchange, ExchangeLimits
from runtime.enclave.traffic.http_headers import identified, request_ids
from runtime.enclave.traffic.http_heads import RequestHead
from runtime.enclave.traffic.http_load import Load
from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.http_pool import PoolLimits, Upstream, UpstreamFailed, UpstreamPool
from runtime.enclave.traffic.http_usual import Judged, Origin, Usual, UsualMeans
from runtime.enclave.traffic.public_evidence import PublicEvidence
from runtime.enclave.traffic.refusal import Refusal
from runtime.enclave.traffic.request_log import RequestLog
from runtime.net.http import Request, Response
from runtime.net.hub import Source, Work
from runtime.net.hub_relay import Means, Tls, relay
from runtime.net.openssl import Buffer, TlsSocket

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})  # RFC 9110 section 9.2.2
# Seconds for a connection's first request, and for one more, once the worker drains: what is on its way is still answered.
_FIRST_GRACE = 1.0
_NEXT_GRACE = 0.1
_ID_FIELD = b"X-Request-Id: %b\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Log(Protocol):
    """Takes events by stable names. Fields never hold bodies, queries or header values."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Records one event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Sizes in bytes, times in seconds. `head_timeout` is for a whole head and for the wait before a connection's first one.

    `requests` of one connection, `in_flight` of all that wait for the customer process together; `rate` a second and `burst` at once of
    one address, None for any number. `retry_after` is what a client is told that may come again.
    """

    line_size: int = 8 * 1024
    head_size: int = 16 * 1024
    head_fields: int = 100
    requests: int = 1000
    in_flight: int = 1024
    rate: float | None = None
    burst: int = 100
    head_timeout: float = 15.0
    keep_alive: float = 60.0
    send_timeout: float = 60.0
    retry_after: int = 5
    pool: PoolLimits = field(default_factory=PoolLimits)
    exchange: ExchangeLimits = field(default_factory=ExchangeLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProxy:
    """What all connections share. `is_closing`: whether a client is to be told that its present request was its connection's last.

    `ready` tells whether the customer process takes requests. While it does not, or the worker drains, connections end. `requests` is
    None where requests are not logged.
    """

    memory: Buffer
    evidence: PublicEvidence
    attestation_path: str
    ready: Callable[[], bool]
    is_closing: Callable[[], bool]
    log: Log
    requests: RequestLog | None
    means: Means
    limits: HttpLimits = field(default_factory=HttpLimits)
    policy: HttpPolicy = field(default_factory=HttpPolicy)
    load: Load = field(init=False)
    usual: UsualMeans = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        load = Load(in_flight_max=limits.in_flight, rate=limits.rate, burst=limits.burst)
        usual = UsualMeans(
            load=load,
            policy=self.policy,
            is_closing=self.is_closing,
            request_ids=request_ids(),
            requests=self.requests,
            attestation_path=self.attestation_path,
            line_size=limits.line_size,
            head_size=limits.head_size,
            fields_max=limits.head_fields,
            answer_timeout=limits.exchange.answer_timeout,
            keep_alive=limits.keep_alive,
            grace=_NEXT_GRACE,
        )
        object.__setattr__(self, "load", load)
        object.__setattr__(self, "usual", usual)

    async def serve(self, work: Work, tls: TlsSocket, source: Source, address: str | None, pool: UpstreamPool) -> None:
        """Serves one connection; `address` is the client's, None for the parent itself. The caller closes it, and `pool`."""
        client = Client(work, tls, source, self.memory, send_timeout=self.limits.send_timeout)
        try:
            if await _Connection(self, client, address, pool).run():
                await client.finish()
            elif tls.socket.fileno() >= 0:
                tls.shutdown()
        except ClientGone:
            pass  # what was cut off must not look finished, so it gets no close_notify


class _Connection:
    """One client connection."""

    __slots__ = ("_client", "_connect", "_limits", "_origin", "_pool", "_proxy", "_usual", "_work")

    def __init__(self, proxy: HttpProxy, client: Client, address: str | None, pool: UpstreamPool) -> None:
        self._proxy = proxy
        self._limits = proxy.limits
        self._client = client
        self._work = client.work
        self._pool = pool
        self._connect: float | None = None  # seconds that the present request's connection took
        is_logged = proxy.requests is not None
        self._origin = Origin(
            address=address,
            network=proxy.load.network_of(address),
            served=client.tls.served_names,
            tls=client.tls.version if is_logged else "",
            group=client.tls.group if is_logged else None,
        )
        self._usual = Usual(proxy.usual, client, self._origin, pool, left=proxy.limits.requests)

    async def run(self) -> bool:
        """Serves requests until one was the last; False when the client was idle for too long, so that nothing can be on its way.

        Raises `ClientGone` when the connection is to be cut instead of ended.
        """
        client, usual = self._client, self._usual
        idle, grace = self._limits.head_timeout, _FIRST_GRACE
        while True:
            if not (client.buffer or client.has_ended):
                if not await usual.serve(idle=idle, grace=grace):
                    return False
                if usual.is_answered:
                    await usual.finish()
                    if usual.judged is not None and not usual.judged.head.keep_alive:
                        return True
                    continue
            try:
                judged = usual.judged if usual.upstream is not None else await self._next()
            except Refusal as refusal:
                await self._refuse(refusal)
                return True
            if judged is None:
                return client.has_ended
            if not await self._serve(judged):
                return client.tls.socket.fileno() >= 0  # a tunnel closes its ends
            idle, grace = self._limits.keep_alive, _NEXT_GRACE

    async def _next(self) -> Judged | None:
        """The next request, None when there is none. Raises `Refusal` and `ClientGone`."""
        usual, limits = self._usual, self._limits
        raw = await self._client.receive_head(timeout=limits.head_timeout, line_max=limits.line_size, size_max=limits.head_size)
        if raw is not None and (usual.judged is None or usual.judged.raw != raw):
            usual.judged = self._proxy.usual.judge(raw, self._origin)
        return None if raw is None else usual.judged

    def _is_closing(self) -> bool:
        return self._usual.left <= 0 or self._proxy.is_closing()

    async def _refuse(self, refusal: Refusal) -> None:
        """Answers a head that is none."""
        proxy, usual, status = self._proxy, self._usual, refusal.response.status
        usual.request_id = proxy.usual.request_ids()
        if proxy.requests is None:
            proxy.log("http_refused", asserted_client=self._origin.address, status=status, code=refusal.code)
        else:
            proxy.requests.add_request(
                self._origin.members(),
                request_id=usual.request_id,
                status=status,
                code=refusal.code,
                request_bytes=0,
                answer_bytes=0,
                seconds=0.0,
            )
        await self._answer(refusal.response, b"", close=True)

    async def _serve(self, judged: Judged) -> bool:
        """Answers one request; whether another may follow it. Raises `ClientGone`."""
        proxy, work, usual, head = self._proxy, self._work, self._usual, judged.head
        body = body_of(head)
        if usual.upstream is None:
            sent, usual.begun = usual.begin(judged), work.hub.now
        else:
            sent = identified(judged.shared, usual.request_id, usual.made_id)
        self._connect = None
        exchange = Exchange(self._client, head, body, self._limits.exchange, self._is_closing)
        exchange.begun = usual.begun
        if proxy.policy.answers_request_id:
            exchange.added = _ID_FIELD % usual.request_id
        code = "ok"
        answer: Response | None = None
        try:
            try:
                if head.path == proxy.attestation_path:
                    answer = await self._evidence(head)
                else:
                    await self._forward(judged, sent, exchange, body)
            except (Refusal, UpstreamFailed) as failure:
                code = failure.code
                if exchange.status is not None:
                    raise ClientGone("its answer cannot be completed") from failure
                answer = failure.response if isinstance(failure, Refusal) else _gateway_error(failure)
            if answer is not None:
                exchange.status = answer.status
                # Bytes of a body that nobody reads may follow, or this worker drains.
                exchange.is_last = (body is not None and not body.complete) or not head.keep_alive or self._is_closing()
                await self._answer(answer, head.method, close=exchange.is_last)
        except ClientGone:
            code = "client_gone" if code == "ok" else code
            raise
        finally:
            if proxy.requests is not None:
                proxy.requests.add_request(
                    judged.members,
                    request_id=usual.request_id,
                    status=exchange.status,
                    code=code,
                    request_bytes=exchange.request_bytes,
                    answer_bytes=exchange.answer_bytes,
                    seconds=work.hub.now - usual.begun,
                    first_byte=exchange.first_byte,
                    connect=self._connect,
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
        answer = partial(self._proxy.evidence.answer, request, client=self._origin.address or "local", connection=self._client.tls)
        return await self._work.call(answer)

    async def _forward(self, judged: Judged, sent: bytes, exchange: Exchange, body: Body | None) -> None:
        """Lets the customer process answer; `sent` is the head as it gets it. Raises `Refusal`, `ClientGone` or `UpstreamFailed`."""
        load, usual, head = self._proxy.load, self._usual, judged.head
        if usual.upstream is None:
            self._admit(judged)
            if body is not None:
                exchange.require_size(head.length or 0)
            load.in_flight += 1
        try:
            upstream, unsent, first = usual.take(), sent, b""
            if upstream is not None:
                unsent, first = usual.unsent, usual.first
                usual.unsent = usual.first = b""
            else:
                upstream = self._pool.take() or await self._open()
                if head.expects_continue:
                    upstream = await self._continue(upstream)
            try:
                await self._exchange(exchange, unsent, upstream, first)
            except UpstreamFailed as failure:
                # A connection that was kept may end just when it is used again. Then, and only then, asking twice is harmless.
                is_old = upstream.was_used and not exchange.answered and not failure.is_timeout
                if not is_old or body is not None or head.method not in _IDEMPOTENT:
                    raise
                upstream = await self._open()
                await self._exchange(exchange, sent, upstream)
        finally:
            load.in_flight -= 1
        if exchange.switched:
            await self._tunnel(exchange, upstream)

    def _admit(self, judged: Judged) -> None:
        """Raises `Refusal` for a request that is not to reach the customer process, or not now."""
        proxy, network, retry_after = self._proxy, self._origin.network, self._limits.retry_after
        if judged.objection is not None:
            raise judged.objection.with_traceback(None)
        if network is not None and (wait := proxy.load.wait_of(network, self._work.hub.now)):
            raise Refusal(429, "too_many_requests", "too many requests from this address", retry_after=wait)
        if not proxy.ready():
            raise Refusal(503, "not_ready", "the application is not ready", retry_after=retry_after)
        if proxy.load.in_flight >= proxy.load.in_flight_max:
            raise Refusal(503, "overloaded", "too many requests are under way", retry_after=retry_after)

    async def _open(self) -> Upstream:
        begun = trio.current_time()  # the hub's own time does not pass while a connection is made at once
        upstream = await self._pool.open(self._work)
        self._connect = trio.current_time() - begun
        return upstream

    async def _continue(self, upstream: Upstream) -> Upstream:
        upstream.source.ignore()  # it is not the pool's while the client takes its time
        try:
            await self._client.send(_CONTINUE)
        except BaseException:
            upstream.close()
            raise
        return upstream

    async def _exchange(self, exchange: Exchange, sent: bytes, upstream: Upstream, first: bytes = b"") -> None:
        try:
            await exchange.run(upstream, sent, first)
        except BaseException:
            upstream.close()
            raise
        if exchange.switched:
            return  # not over yet
        if exchange.keeps_upstream:
            self._pool.give(upstream)
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
        if self._proxy.policy.answers_request_id:
            fields.append(("x-request-id", self._usual.request_id.decode("ascii")))
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
