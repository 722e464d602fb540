"""Ingress mode `http`: the requests of one client connection, in order, to the customer process or answered here.

Clients are hostile; so is the customer process as far as other people's requests go. A request is judged (http_heads), rebuilt, and
only then handed on; a doubt ends the connection. The attestation path is answered here and never reaches the customer process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Protocol

import h11
import trio

from runtime.enclave.traffic.draining import Draining
from runtime.enclave.traffic.http_bodies import body_of
from runtime.enclave.traffic.http_downstream import ClientGone, Downstream
from runtime.enclave.traffic.http_exchange import Exchange, ExchangeLimits
from runtime.enclave.traffic.http_heads import RequestHead, parse_request
from runtime.enclave.traffic.http_upstream import Upstream, UpstreamFailed
from runtime.enclave.traffic.public_evidence import PublicEvidence
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.endpoint import Endpoint
from runtime.net.http import Request, Response
from runtime.net.tls import TlsStream

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})  # RFC 9110 section 9.2.2
_LOGGED_PATH_MAX = 256
# Seconds for a connection's first request, and for one more, once the worker drains: what is on its way is still answered.
_FIRST_GRACE = 1.0
_NEXT_GRACE = 0.1
_CONTINUE = h11.InformationalResponse(status_code=100, reason=b"Continue", headers=[])


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
    connect_timeout: float = 5.0
    not_ready_retry_after: int = 5
    exchange: ExchangeLimits = field(default_factory=ExchangeLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProxy:
    """What all connections share. `ready` tells whether the customer process takes requests; while it does not, connections end.

    While the worker drains, requests that come on the connections that are there are answered, each as the last one of its connection.
    """

    upstream: Endpoint
    evidence: PublicEvidence
    attestation_path: str
    ready: Callable[[], bool]
    log: Log
    limits: HttpLimits = field(default_factory=HttpLimits)
    draining: Draining = field(default_factory=Draining)

    def is_closing(self) -> bool:
        """Whether the client is to be told that this request was its connection's last."""
        return self.draining.is_asked or not self.ready()

    async def serve(self, stream: TlsStream, address: str | None) -> None:
        """Serves one connection and closes it; `address` is the client's, None for the parent itself."""
        downstream = Downstream(stream, send_timeout=self.limits.send_timeout)
        connection = _Connection(self, stream, downstream, address)
        try:
            if await connection.run():
                await downstream.finish()
            await stream.aclose()
        except ClientGone:
            pass
        finally:
            try:
                await connection.aclose()
            finally:
                # Forcefully: what was cut off must not look finished, so it gets no close_notify.
                await trio.aclose_forcefully(stream)


class _Connection:
    """One client connection and the connection to the customer process that serves it."""

    def __init__(self, proxy: HttpProxy, stream: TlsStream, downstream: Downstream, address: str | None) -> None:
        self._proxy = proxy
        self._limits = proxy.limits
        self._stream = stream
        self._downstream = downstream
        self._address = address
        self._upstream: Upstream | None = None

    async def aclose(self) -> None:
        """Ends the connection to the customer process, if there is one."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.aclose()

    async def run(self) -> bool:
        """Serves requests until one was the last; False when the client was idle for too long, so that nothing can be on its way.

        Raises `ClientGone` when the connection is to be cut instead of ended.
        """
        idle = self._proxy.draining.waiting(self._limits.head_timeout, grace=_FIRST_GRACE)
        while True:
            framing = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head_size)
            try:
                raw = await self._downstream.receive_head(
                    idle=idle, timeout=self._limits.head_timeout, size_max=self._limits.head_size
                )
                if raw is None:
                    return self._downstream.has_ended
                head = parse_request(framing, raw, fields_max=self._limits.head_fields)
            except Refusal as refusal:
                self._proxy.log("http_refused", client=self._address, status=refusal.response.status, code=refusal.code)
                await self._answer(framing, refusal.response, b"", close=True)
                return True
            if not await self._serve(framing, head):
                await self.aclose()
                return True
            idle = self._proxy.draining.waiting(self._limits.keep_alive, grace=_NEXT_GRACE)

    async def _serve(self, framing: h11.Connection, head: RequestHead) -> bool:
        """Answers one request; whether another may follow it. Raises `ClientGone`."""
        body = body_of(head)
        exchange = Exchange(downstream=self._downstream, framing=framing, head=head, body=body, limits=self._limits.exchange)
        begun = trio.current_time()
        code = "ok"
        answer: Response | None = None
        try:
            try:
                if head.path.decode("ascii") == self._proxy.attestation_path:
                    answer = await self._evidence(head)
                else:
                    await self._forward(framing, head, exchange)
            except (Refusal, UpstreamFailed) as failure:
                code = failure.code
                await self.aclose()
                if exchange.status is not None:
                    raise ClientGone("its answer cannot be completed") from failure
                answer = failure.response if isinstance(failure, Refusal) else _gateway_error(failure)
            if answer is not None:
                exchange.status = answer.status
                # Bytes of a body that nobody reads may follow, or this worker drains.
                await self._answer(framing, answer, head.method, close=not body.complete or self._proxy.is_closing())
        except ClientGone:
            code = "client_gone" if code == "ok" else code
            raise
        finally:
            self._proxy.log(
                "http_request",
                client=self._address,
                method=head.method.decode("ascii"),
                path=head.path.decode("ascii")[:_LOGGED_PATH_MAX],
                status=exchange.status,
                code=code,
                request_bytes=exchange.request_bytes,
                answer_bytes=exchange.answer_bytes,
                seconds=trio.current_time() - begun,
            )
        return body.complete and framing.our_state is h11.DONE

    async def _evidence(self, head: RequestHead) -> Response:
        request = Request(
            method=head.method.decode("ascii"),
            path=head.path.decode("ascii"),
            query=head.query.decode("ascii"),
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in head.fields),
            body=b"",
        )
        return await self._proxy.evidence.answer(request, client=self._address or "local", connection=self._stream)

    async def _forward(self, framing: h11.Connection, head: RequestHead, exchange: Exchange) -> None:
        """Lets the customer process answer. Raises `Refusal`, `ClientGone` or `UpstreamFailed`."""
        if not self._proxy.ready():
            raise Refusal(503, "not_ready", "the application is not ready", retry_after=self._limits.not_ready_retry_after)
        exchange.require_size(head.length or 0)
        upstream = await self._reach()
        if head.expects_continue:
            await self._downstream.send(framing.send(_CONTINUE) or b"")
        run = partial(exchange.run, address=self._address, closing=self._proxy.is_closing)
        try:
            await run(upstream)
        except UpstreamFailed:
            # A connection that was kept may end just when it is used again. Then, and only then, asking twice is harmless.
            if not upstream.was_used or upstream.answered or head.has_body or head.method not in _IDEMPOTENT:
                raise
            await self.aclose()
            await run(await self._reach())

    async def _reach(self) -> Upstream:
        """The kept connection to the customer process, if it can serve another request, else a new one. Raises `UpstreamFailed`."""
        if self._upstream is not None and self._upstream.is_reusable():
            self._upstream.start_again()
        else:
            await self.aclose()
            self._upstream = await Upstream.open(self._proxy.upstream, self._limits.connect_timeout)
        return self._upstream

    async def _answer(self, framing: h11.Connection, response: Response, method: bytes, *, close: bool) -> None:
        fields = [*response.headers, ("content-length", str(len(response.body)))]
        if close:
            fields.append(("connection", "close"))
        events: list[h11.Event] = [
            h11.Response(status_code=response.status, reason=HTTPStatus(response.status).phrase, headers=fields),
            h11.EndOfMessage(),
        ]
        if method != b"HEAD":
            events.insert(1, h11.Data(data=response.body))
        await self._downstream.send(b"".join(framing.send(event) or b"" for event in events))


def _gateway_error(failure: UpstreamFailed) -> Response:
    if failure.is_timeout:
        return Refusal(504, "upstream_timeout", "the application did not answer in time").response
    return Refusal(502, "upstream_failed", "the application did not give a usable answer").response
