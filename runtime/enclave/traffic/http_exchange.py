"""One request handed on to the customer process and its answer handed back, both at once and in constant memory.

Both directions are moved by one work, because an answer may begin, and end, before the request does. One side is read only while the
other takes what was read, so each is as fast as the slower of the two and at most one buffer is kept.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from runtime.enclave.traffic.http_answers import HEAD_MAX, AnswerHead, BadAnswer, cannot_begin_answer, parse_answer
from runtime.enclave.traffic.http_bodies import Body, ChunkedBody, LengthBody
from runtime.enclave.traffic.http_client import Client, ClientGone
from runtime.enclave.traffic.http_heads import RequestHead
from runtime.enclave.traffic.http_pool import Upstream, UpstreamFailed
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.hub import IN, OUT, Expired
from runtime.net.openssl import ENDED

_REQUEST_ID = re.compile(rb"\r\nx-request-id:[^\r]*(?=\r\n)", re.IGNORECASE)
_READ_AHEAD = 16 * 1024  # bytes of later requests that are taken in while an answer is under way
_ROUNDS = 4  # reads of one direction before other connections have their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeLimits:
    """Seconds until an answer begins, between its parts, between parts of a request's body, for the whole body, for everything
    together; bytes of a body, None for any number."""

    answer_timeout: float = 60.0
    answer_idle: float = 300.0
    body_idle: float = 30.0
    body_timeout: float = 1800.0
    timeout: float = 3600.0
    body_size: int | None = None


class Exchange:
    """The state of one request under way. When `status` is set the answer has begun, so that it cannot be replaced by another."""

    __slots__ = (
        "_answer_left", "_body", "_chunks", "_client", "_client_moved", "_closing", "_framing", "_head", "_limits", "_out",
        "_raw", "_upstream", "_upstream_moved", "added", "answer_bytes", "answered", "begun", "first_byte", "is_last", "is_over",
        "keeps_upstream", "request_bytes", "status", "switched", "takes_no_more",
    )  # fmt: skip

    def __init__(
        self, client: Client, head: RequestHead, body: Body | None, limits: ExchangeLimits, closing: Callable[[], bool]
    ) -> None:
        self._client = client
        self._head = head
        self._body = body
        self._limits = limits
        self._closing = closing
        self.begun = client.work.hub.now
        self.added = b""  # lines that the answer's head gets besides
        self.first_byte: float | None = None  # seconds until the answer began
        self.status: int | None = None
        self.request_bytes = 0
        self.answer_bytes = 0
        self.answered = False
        self.is_last = False
        self.switched = False

    def require_size(self, size: int) -> None:
        """Raises `Refusal` for a body of more bytes than are allowed."""
        if self._limits.body_size is not None and size > self._limits.body_size:
            raise Refusal(413, "body_too_large", f"the body has more than {self._limits.body_size} bytes")

    async def run(self, upstream: Upstream, head: bytes, first: bytes = b"") -> None:
        """Carries the request out over `upstream`, `head` first. Raises `Refusal`, `ClientGone` or `UpstreamFailed`.

        `first` is what has come of its answer.

        Afterwards `is_last` says that no other request may follow on the client's connection, `keeps_upstream` that one may on `upstream`,
        `switched` that both speak another protocol from here on.
        """
        client = self._client
        self._upstream = upstream
        self._out: bytes = head
        self._raw = bytearray()
        self._chunks: ChunkedBody | None = None
        self._framing = ""
        self._answer_left = 0
        self.is_over = self.takes_no_more = self.keeps_upstream = False
        work = client.work
        self._client_moved = self._upstream_moved = work.hub.now
        body = self._body
        source, other = client.source, upstream.source
        self._send_request()
        if first:
            self.answered = True
            self._raw += first
            self._pass_raw()
        if not self._out and body is None:  # as most requests are: nothing but the answer is waited for
            work.within(self._limits.answer_timeout)
        events = -1
        while not self.is_over or client.unsent:
            wants = 0
            if client.unsent:
                wants = OUT
                other_wants = 0
            else:
                other_wants = IN
            if self._out:
                other_wants |= OUT
            elif not client.has_ended and ((body is not None and not body.complete) or len(client.buffer) < _READ_AHEAD):
                wants |= IN
            if body is not None or client.unsent or self.status is not None or self._out:
                work.deadline = self._deadline()
            try:
                events = await work.wait(source, wants, other, other_wants)
            except Expired:
                self._expired()
            if events:
                self._client_is_ready(events)
            else:
                self._upstream_is_ready()
        self.keeps_upstream = self.keeps_upstream and not (self._out or self._raw or self.takes_no_more)
        self.keeps_upstream = self.keeps_upstream and (body is None or body.complete)
        if body is not None and not body.complete:
            self.is_last = True

    def _client_is_ready(self, events: int) -> None:
        client = self._client
        if client.unsent and events & ~IN:  # it has read, or its socket would not be ready for more
            client.flush()
            self._client_moved = client.work.hub.now
        if not client.unsent and self._raw and self._framing and not self.is_over:
            self._pass_raw()
        if events & ~OUT and not self._out:
            if self._body is not None and not self._body.complete:
                self._send_request(may_read=True)
            elif not client.has_ended and len(client.buffer) < _READ_AHEAD and (size := client.read()) > 0:
                client.buffer += client.memory.view[:size]

    def _upstream_is_ready(self) -> None:
        if self._out:
            self._send_request()
        if not self._client.unsent and not self.is_over:
            self._receive_answer()

    def _send_request(self, *, may_read: bool = False) -> None:
        """Moves the request on as far as the upstream takes it; with `may_read` also what the client sends."""
        client, body = self._client, self._body
        rounds = _ROUNDS
        while rounds > 0 or client.tls.is_at_end:
            rounds -= 1
            if self._out:
                self._out = self._out[self._send(self._out) :]
                if self._out:
                    return
            if body is None or body.complete:
                return
            if client.buffer:
                self._out = self._encode(body, body.take(client.buffer))
                if self._out:
                    continue
            if may_read and not client.has_ended:
                size = client.read(many=isinstance(body, LengthBody) and body.left >= client.memory.size)
            elif client.has_ended:  # perhaps seen while an earlier answer was under way
                size = ENDED
            else:
                return
            if size == ENDED:
                raise Refusal(400, "incomplete_body", "the connection ended within the body")
            if size < 0:
                return
            self._client_moved = client.work.hub.now
            view = client.memory.view
            if isinstance(body, LengthBody):
                mine = body.skip(size)
                self.request_bytes += mine
                sent = self._send(view[:mine])
                self._out = bytes(view[sent:mine])
                client.buffer += view[mine:size]
            else:
                client.buffer += view[:size]

    def _encode(self, body: Body, content: bytes) -> bytes:
        self.request_bytes += len(content)
        self.require_size(self.request_bytes)
        if self._head.chunked:
            if content:
                content = b"%x\r\n%b\r\n" % (len(content), content)
            if body.complete:
                content += b"0\r\n\r\n"
        return content

    def _send(self, data: bytes | memoryview) -> int:
        """How many bytes the upstream took. One that takes no more may still answer: all is taken, and goes nowhere."""
        if self.takes_no_more or not data:
            return len(data)
        try:
            sent = self._upstream.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.takes_no_more = True  # whether that was before, within or after an answer is seen where the answer is read
            return len(data)
        self._upstream_moved = self._client.work.hub.now
        return sent

    def _receive_answer(self) -> None:
        client = self._client
        view = client.memory.view
        for _ in range(_ROUNDS):
            try:
                size = self._upstream.socket.recv_into(view)
            except BlockingIOError:
                return
            except OSError as error:
                raise UpstreamFailed("upstream_closed", str(error)) from None
            self._upstream_moved = self._client_moved = client.work.hub.now
            if not size:
                self._end_of_upstream()
                return
            self.answered = True
            if self._framing == "length":
                self._pass_length(view[:size])
            else:
                self._raw += view[:size]
                self._pass_raw()
            if self.is_over or client.unsent or size < 16 * 1024:
                return

    def _pass_length(self, data: memoryview) -> None:
        """Hands on a part of a body of known length; what follows it makes the upstream useless."""
        left = self._answer_left
        if len(data) > left:
            self._raw += data[left:]
            data = data[:left]
        self._answer_left = left - len(data)
        self.answer_bytes += len(data)
        self._client.write_view(data)
        self.is_over = not self._answer_left

    def _pass_raw(self) -> None:
        """Makes what it can of what has come: heads, chunks, bytes until the end."""
        raw = self._raw
        prefix = b""
        while not self._framing:
            end = raw.find(b"\r\n\r\n") + 4
            if end < 4:
                if cannot_begin_answer(raw):
                    raise UpstreamFailed("upstream_malformed", "not the head of an answer")
                if len(raw) >= HEAD_MAX:
                    raise UpstreamFailed("upstream_malformed", "the head of the answer is too large")
                break
            prefix += self._take_head(bytes(raw[:end]))
            del raw[:end]
        content = b""
        if self._framing == "length":
            content = bytes(raw[: self._answer_left])
            del raw[: len(content)]
            self._answer_left -= len(content)
            self.is_over = not self._answer_left
        elif self._framing == "none" and not self.switched:
            self.is_over = True
        elif self._framing in ("none", "end"):
            self.is_over = self.switched
            content = bytes(raw)
            raw.clear()
        elif self._chunks is not None:
            try:
                content = self._chunks.take(raw)
            except Refusal as refusal:
                raise UpstreamFailed("upstream_malformed", str(refusal)) from None
            self.is_over = self._chunks.complete
        self.answer_bytes += len(content)
        if self._framing in ("chunked", "end") and self._head.version == b"1.1":
            content = (b"%x\r\n%b\r\n" % (len(content), content) if content else b"") + (b"0\r\n\r\n" if self.is_over else b"")
        if prefix or content:
            self._client.write(prefix + content)

    def _take_head(self, raw: bytes) -> bytes:
        """What the client gets of a head, informational or final."""
        try:
            answer = parse_answer(raw, method=self._head.method)
        except BadAnswer as error:
            raise UpstreamFailed("upstream_malformed", str(error)) from None
        if answer.status < 200:
            if answer.status == 101:
                return self._switch(answer)
            # 100 was sent from here; the others are for whoever knows what a 1xx is.
            return answer.lines + b"\r\n" if answer.status != 100 and self._head.version == b"1.1" else b""
        return self._begin(answer)

    def _switch(self, answer: AnswerHead) -> bytes:
        """The protocol changes, as the client has asked for. What comes behind this head is not HTTP."""
        if not self._head.is_websocket or (answer.upgrade or b"").lower() != b"websocket":
            raise UpstreamFailed("upstream_malformed", "a change of protocol that nobody asked for")
        self.status, self._framing = answer.status, "none"
        self.first_byte = self._client.work.hub.now - self.begun
        self.switched = self.is_last = True
        return answer.lines + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    def _begin(self, answer: AnswerHead) -> bytes:
        self.status = answer.status
        self.first_byte = self._client.work.hub.now - self.begun
        self._framing = answer.framing
        self._answer_left = answer.length
        self.keeps_upstream = answer.keep_alive
        lines = answer.lines
        if self.added:
            lines = _REQUEST_ID.sub(b"", lines) + self.added
        ends = not self._head.keep_alive
        if answer.framing in ("chunked", "end"):
            self._chunks = ChunkedBody() if answer.framing == "chunked" else None
            if self._head.version == b"1.1":
                lines += b"Transfer-Encoding: chunked\r\n"
        if ends or self._closing() or (self._body is not None and not self._body.complete):
            self.is_last = True
            lines += b"Connection: close\r\n"
        return lines + b"\r\n"

    def _end_of_upstream(self) -> None:
        if self._framing != "end":
            raise UpstreamFailed("upstream_closed", "the connection ended before the answer")
        self.is_over = True
        if self._head.version == b"1.1":
            self._client.write(b"0\r\n\r\n")

    def _deadline(self) -> float:
        """When this exchange has waited too long for whoever has to move next."""
        limits = self._limits
        if self._client.unsent:
            deadline = self._client_moved + self._client.send_timeout
        else:
            deadline = self._upstream_moved + (limits.answer_timeout if self.status is None else limits.answer_idle)
            if not self._out and self._body is not None and not self._body.complete and not self.takes_no_more:
                idle = max(self._client_moved, self._upstream_moved) + limits.body_idle
                deadline = min(deadline, idle, self.begun + limits.body_timeout)
        return min(deadline, self.begun + limits.timeout)

    def _expired(self) -> None:
        now, limits = self._client.work.hub.now, self._limits
        waits_for_body = not self._out and self._body is not None and not self._body.complete and not self.takes_no_more
        if now >= self.begun + limits.timeout and not waits_for_body:
            raise UpstreamFailed("exchange_timeout", f"not over within {limits.timeout:g} seconds")
        if self._client.unsent:
            raise ClientGone("it does not read")
        patience = limits.answer_timeout if self.status is None else limits.answer_idle
        if waits_for_body and now < self._upstream_moved + patience:
            raise Refusal(408, "body_timeout", "the body did not come in time")
        raise UpstreamFailed("upstream_timeout", f"nothing within {patience:g} seconds")
