"""One request handed on to the customer process and its answer handed back, both at once and in constant memory.

Two pumps run side by side, because an answer may begin, and end, before the request does. What either of them fails by ends both.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import h11
import trio

from runtime.enclave.traffic.http_bodies import Body
from runtime.enclave.traffic.http_downstream import ClientGone, Downstream
from runtime.enclave.traffic.http_heads import RequestHead, forwarded_request, returned_fields
from runtime.enclave.traffic.http_upstream import Upstream, UpstreamFailed
from runtime.enclave.traffic.refusal import Refusal

_READ_AHEAD = 16 * 1024  # bytes of later requests that are taken in while an answer is under way


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeLimits:
    """Seconds until an answer begins, between its parts, between parts of a request's body; bytes of a body, None for any number."""

    answer_timeout: float = 60.0
    answer_idle: float = 300.0
    body_idle: float = 30.0
    body_size: int | None = None


class Exchange:
    """The state of one request under way. `framing` is h11 as the server that read the head: it frames the answer.

    When `status` is set the answer has begun, so that it cannot be replaced by another.
    """

    def __init__(
        self, *, downstream: Downstream, framing: h11.Connection, head: RequestHead, body: Body, limits: ExchangeLimits
    ) -> None:
        self._downstream = downstream
        self._framing = framing
        self._head = head
        self._body = body
        self._limits = limits
        self._failure: Refusal | ClientGone | UpstreamFailed | None = None
        self.status: int | None = None
        self.request_bytes = 0
        self.answer_bytes = 0

    def require_size(self, size: int) -> None:
        """Raises `Refusal` for a body of more bytes than are allowed."""
        if self._limits.body_size is not None and size > self._limits.body_size:
            raise Refusal(413, "body_too_large", f"the body has more than {self._limits.body_size} bytes")

    async def run(self, upstream: Upstream, *, address: str | None, closing: Callable[[], bool]) -> None:
        """Carries the request out over `upstream`. Raises `Refusal`, `ClientGone` or `UpstreamFailed`.

        `closing` is asked when the answer begins: whether the client is to be told that this was its connection's last request.
        """
        self._failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guard, partial(self._pump_request, upstream, address), nursery.cancel_scope)
            await self._guard(partial(self._pump_answer, upstream, closing), nursery.cancel_scope)
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure

    async def _guard(self, pump: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        """Keeps the first failure, which is the reason of the other, and ends both pumps for it."""
        try:
            await pump()
        except (Refusal, ClientGone, UpstreamFailed) as failure:
            self._failure = self._failure or failure
            scope.cancel()

    async def _pump_request(self, upstream: Upstream, address: str | None) -> None:
        pending = [upstream.encode(forwarded_request(self._head, address))]
        try:
            while not self._body.complete:
                data = self._body.take(self._downstream.buffer)
                self.request_bytes += len(data)
                self.require_size(self.request_bytes)
                if data:
                    pending.append(upstream.encode(h11.Data(data=data)))
                elif not self._body.complete:
                    await upstream.send(b"".join(pending))
                    pending.clear()
                    await self._receive_body()
            pending.append(upstream.encode(h11.EndOfMessage()))
            await upstream.send(b"".join(pending))
        except UpstreamFailed:
            return  # whether that was before, within or after an answer is for the other pump to find out
        # From here on only to notice a client that goes; one that has merely ended its side still gets its answer.
        while len(self._downstream.buffer) < _READ_AHEAD and await self._downstream.receive():
            pass

    async def _receive_body(self) -> None:
        with trio.move_on_after(self._limits.body_idle) as waiting:
            if not await self._downstream.receive():
                raise Refusal(400, "incomplete_body", "the connection ended within the body")
        if waiting.cancelled_caught:
            raise Refusal(408, "body_timeout", f"nothing of the body within {self._limits.body_idle:g} seconds")

    async def _pump_answer(self, upstream: Upstream, closing: Callable[[], bool]) -> None:
        pending: list[bytes] = []
        while True:
            event = upstream.next_event()
            match event:
                case h11.NEED_DATA:
                    await self._flush(pending)
                    await upstream.receive(self._limits.answer_timeout if self.status is None else self._limits.answer_idle)
                case h11.InformationalResponse():
                    # 100 was sent from here; the others are for whoever knows what a 1xx is.
                    if event.status_code != 100 and self._head.version == b"1.1":
                        pending.append(self._encode(_informational(event)))
                case h11.Response():
                    self.status = event.status_code
                    fields = returned_fields(event)
                    if closing() or not self._body.complete:
                        fields.append((b"Connection", b"close"))
                    pending.append(self._encode(h11.Response(status_code=event.status_code, reason=event.reason, headers=fields)))
                case h11.Data():
                    self.answer_bytes += len(event.data)
                    pending.append(self._encode(h11.Data(data=bytes(event.data))))
                case h11.EndOfMessage():
                    pending.append(self._encode(h11.EndOfMessage()))
                    await self._flush(pending)
                    return
                case _:
                    raise UpstreamFailed("upstream_closed", "the connection ended before the answer")

    def _encode(self, event: h11.Event) -> bytes:
        return self._framing.send(event) or b""

    async def _flush(self, pending: list[bytes]) -> None:
        if pending:
            await self._downstream.send(b"".join(pending))
            pending.clear()


def _informational(event: h11.InformationalResponse) -> h11.InformationalResponse:
    return h11.InformationalResponse(status_code=event.status_code, reason=event.reason, headers=returned_fields(event))
