"""The usual request, carried by two callbacks of the hub: a coroutine for each would be most of what it costs.

It has no body, came in one read and finds a kept connection to the customer process; its answer comes in one read too, has a length, and
leaves that connection open. Whatever is otherwise is left to the connection's work at the point that was reached, with all that was read.
"""

from collections.abc import Callable
from dataclasses import dataclass

from runtime.enclave.traffic.http_answers import BadAnswer, parse_answer
from runtime.enclave.traffic.http_client import Client, ClientGone
from runtime.enclave.traffic.http_headers import given_request_id, identified, shared_head
from runtime.enclave.traffic.http_heads import RequestHead, find_head, parse_request
from runtime.enclave.traffic.http_load import Load
from runtime.enclave.traffic.http_policy import HttpPolicy, objection_to
from runtime.enclave.traffic.http_pool import NOTHING_KNOWN, KnownAnswer, Upstream, UpstreamFailed, UpstreamPool
from runtime.enclave.traffic.refusal import Refusal
from runtime.enclave.traffic.request_log import RequestLog, shared_members
from runtime.net.hub import Expired
from runtime.net.openssl import ENDED, WANT_READ, TlsBroken

_LOGGED_MAX = 256  # characters of a path, and of a query
_KNOWN_MAX = 4096
"""Bytes of an answer's head that is remembered with the connection that it came on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a connection comes from, by the parent's word, None for the parent's own; and what it is, by ours.

    `network` is what the address is counted as, None where it is not. `served` are the names that the certificate stands for.
    """

    address: str | None
    network: str | None
    served: tuple[str, ...]
    tls: str
    group: str | None

    def members(self, head: RequestHead | None = None, *, with_query: bool = False) -> str:
        """What the log says of all requests of this head."""
        query = b"" if head is None else head.query
        return shared_members(
            asserted_client=self.address,
            tls=self.tls,
            group=self.group,
            method=None if head is None else head.method.decode("ascii"),
            path=None if head is None else head.path[:_LOGGED_MAX],
            query=query[:_LOGGED_MAX].decode("ascii") if query and with_query else None,
            query_bytes=len(query) or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A request's head: as it came, as it was understood, and what goes on of it: to the customer process and to the log.

    `given_id` is the name that a trusted client gave, `objection` why the request is refused although it is well-formed.
    All of it is a function of the bytes `raw` and of the connection, so that the same bytes again need not be judged again.
    """

    raw: bytes
    head: RequestHead
    shared: bytes
    members: str
    given_id: bytes | None
    objection: Refusal | None
    is_usual: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualMeans:
    """What the usual requests of all connections share; see `HttpProxy`. Seconds; sizes are in bytes."""

    load: Load
    policy: HttpPolicy
    is_closing: Callable[[], bool]
    request_ids: Callable[[], bytes]
    requests: RequestLog | None
    attestation_path: str
    line_size: int
    head_size: int
    fields_max: int
    answer_timeout: float
    keep_alive: float
    grace: float

    def judge(self, raw: bytes, origin: Origin) -> Judged:
        """Judges the head that `find_head` found. Raises `Refusal`."""
        policy = self.policy
        head = parse_request(raw, fields_max=self.fields_max)
        objection = objection_to(head, policy, origin.served)
        is_else = head.has_body or head.is_websocket or head.method == b"HEAD" or head.path == self.attestation_path
        is_else = is_else or objection is not None or origin.network is not None or policy.answers_request_id
        return Judged(
            raw=raw,
            head=head,
            shared=shared_head(head, origin.address, policy.trusted_headers),
            members="" if self.requests is None else origin.members(head, with_query=policy.logs_query),
            given_id=given_request_id(head, policy.trusted_headers),
            objection=objection,
            is_usual=not is_else,
        )


class Usual:
    """Serves the usual requests of one connection, while its work pauses in `serve`.

    When that returns with `upstream` set, the request of `judged` is under way: `unsent` is what is left of it, `first` what has come of
    its answer. With `is_answered` its answer has been written, as far as the client takes it. Otherwise what was read is in the client's
    buffer.
    """

    __slots__ = (
        "_answer_bytes", "_client", "_first_byte", "_hub", "_load", "_means", "_memory", "_on_answer", "_on_client", "_origin",
        "_pool", "_read", "_source", "_status", "_view", "_work", "_write", "begun", "first", "is_answered", "is_late", "judged",
        "left", "made_id", "request_id", "unsent", "upstream",
    )  # fmt: skip

    def __init__(self, means: UsualMeans, client: Client, origin: Origin, pool: UpstreamPool, *, left: int) -> None:
        self._means = means
        self._load = means.load
        self._client = client
        self._origin = origin
        self._pool = pool
        self.left = left  # requests that this connection may still make
        self._work = client.work
        self._hub = client.work.hub
        self._source = client.source
        self._memory = client.memory.memory
        self._view = client.memory.view
        self._read = client.tls.read
        self._write = client.tls.write
        self._on_client = self._client_is_ready
        self._on_answer = self._answer_is_ready
        self.judged: Judged | None = None
        self.upstream: Upstream | None = None
        self.unsent = self.first = self.request_id = self.made_id = b""
        self.begun = self._first_byte = 0.0
        self._status = self._answer_bytes = 0
        self.is_answered = self.is_late = False

    async def serve(self, *, idle: float, grace: float) -> bool:
        """Serves until something else is to be done; False when nothing came for `idle` seconds. Raises `ClientGone`.

        `grace` is what is left of `idle` when the hub is hastened.
        """
        self.is_answered = False
        self._source.watch(self._on_client)
        self._work.within(idle, grace=grace)
        try:
            await self._work.pause()
        except Expired:
            self.is_late = self.upstream is not None
            return self.is_late
        except BaseException:
            if self.upstream is not None:
                self.upstream.close()
                self._load.in_flight -= 1
            raise
        finally:
            self._source.ignore()
            if self.upstream is not None:
                self.upstream.source.ignore()
        return True

    def take(self) -> Upstream | None:
        """What the request under way is under way on, which is the caller's from now on. Raises `UpstreamFailed` when its time is over."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None and self.is_late:
            self.is_late = False
            upstream.close()
            raise UpstreamFailed("upstream_timeout", f"nothing within {self._means.answer_timeout:g} seconds")
        return upstream

    def _client_is_ready(self) -> None:
        if self.upstream is not None:  # it goes away, or asks for more before it has its answer
            self._hub.step(self._work, 0)
            return
        try:
            size = self._read(self._client.memory)
        except TlsBroken as error:
            self._hub.step(self._work, 0, ClientGone(str(error)))
            return
        if size <= 0:
            if size != WANT_READ:
                self._client.has_ended = size == ENDED
                self._hub.step(self._work, 0)
            return
        judged = self.judged
        if judged is None or size != len(judged.raw) or not self._memory.startswith(judged.raw):
            judged = self._judge(self._memory[:size])
        load = self._load
        if (
            judged is None
            or not judged.is_usual
            or self.left < 2
            or load.in_flight >= load.in_flight_max
            or self._means.is_closing()
            or (upstream := self._pool.take()) is None
        ):
            self._client.buffer += self._view[:size]
            self._hub.step(self._work, 0)
            return
        self._ask(judged, upstream)

    def _judge(self, read: bytearray) -> Judged | None:
        """None for what is no whole head and nothing behind it, and for what is refused, which the work does."""
        try:
            if find_head(read, 0, line_max=self._means.line_size, size_max=self._means.head_size) != len(read):
                return None
            self.judged = self._means.judge(bytes(read), self._origin)
        except Refusal:
            return None
        return self.judged

    def begin(self, judged: Judged) -> bytes:
        """Counts and names one request; its head as the customer process gets it."""
        self.left -= 1
        self.made_id = made = self._means.request_ids()
        self.request_id = judged.given_id or made
        return identified(judged.shared, self.request_id, made)

    def _ask(self, judged: Judged, upstream: Upstream) -> None:
        self.upstream = upstream
        self._load.in_flight += 1
        self.begun = now = self._hub.now
        data = self.begin(judged)
        try:
            sent = upstream.socket.send(data)
        except OSError:
            sent = 0  # whatever it is comes again where all is not usual
        work = self._work
        work.grace = float("inf")
        if sent != len(data):
            self.unsent = data[sent:]
            self._hub.step(work, 0)
            return
        upstream.source.watch(self._on_answer)
        work.deadline = now + self._means.answer_timeout
        if work.deadline < work.due:
            work.remind()

    def _answer_is_ready(self) -> None:
        upstream = self.upstream
        assert upstream is not None
        try:
            size = upstream.socket.recv_into(self._view)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        known = upstream.known
        if size < len(known.raw) or not self._memory.startswith(known.raw):
            known = self._remember(upstream, size)
        means = self._means
        if size != known.whole or means.is_closing():
            self.first = bytes(self._view[:size])
            self._hub.step(self._work, 0)
            return
        gone: ClientGone | None = None
        client = self._client
        judged = self.judged
        assert judged is not None
        ends = b"\r\n" if judged.head.keep_alive else b"Connection: close\r\n\r\n"
        data = b"".join((known.lines, ends, self._view[len(known.raw) : size]))
        self.upstream = None
        self._pool.give(upstream)
        self._status, self._answer_bytes = known.status, size - len(known.raw)
        self._first_byte = self._hub.now - self.begun
        try:
            sent = self._write(data)
            if sent != len(data):
                client.unsent = memoryview(data)[max(sent, 0) :]
        except TlsBroken as error:
            gone = ClientGone(str(error))
        if not client.unsent:
            self._account(judged, "ok" if gone is None else "client_gone")
        work = self._work
        if gone is not None or client.unsent or not judged.head.keep_alive:
            self.is_answered = True
            self._hub.step(work, 0, gone)
            return
        work.deadline = self._hub.now + means.keep_alive
        work.grace = means.grace
        if work.deadline < work.due:
            work.remind()

    async def finish(self) -> None:
        """Waits until the client has taken the answer. Raises `ClientGone`."""
        if not self._client.unsent:
            return
        code = "client_gone"
        try:
            await self._client.drain()
            code = "ok"
        finally:
            assert self.judged is not None
            self._account(self.judged, code)

    def _account(self, judged: Judged, code: str) -> None:
        """Ends a request whose answer the client has, or never will have."""
        self._load.in_flight -= 1
        requests = self._means.requests
        if requests is not None:
            requests.add_request(
                judged.members,
                request_id=self.request_id,
                status=self._status,
                code=code,
                request_bytes=0,
                answer_bytes=self._answer_bytes,
                seconds=self._hub.now - self.begun,
                first_byte=self._first_byte,
            )

    def _remember(self, upstream: Upstream, size: int) -> KnownAnswer:
        """The head of the answer that was read; `NOTHING_KNOWN` when it is not all there, or not an answer's."""
        end = self._memory.find(b"\r\n\r\n", 0, size) + 4
        if end < 4 or end > _KNOWN_MAX:
            return NOTHING_KNOWN
        raw = bytes(self._view[:end])
        try:
            answer = parse_answer(raw, method=b"GET")
        except BadAnswer:
            return NOTHING_KNOWN
        whole = -1
        if answer.status >= 200 and answer.keep_alive and answer.framing in ("none", "length"):
            whole = end + (answer.length if answer.framing == "length" else 0)
        upstream.known = KnownAnswer(raw=raw, lines=answer.lines, status=answer.status, whole=whole)
        return upstream.known
