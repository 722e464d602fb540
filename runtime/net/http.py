"""Small, whole HTTP/1.1 messages for control traffic, over any stream: both ends, on h11's strict state machine.

This is not the data path of the ingress: bodies are held in memory up to `max_body`. A server's handler sees complete requests
only; whatever is wrong with a request is answered here, as `application/problem+json` (RFC 9457), and ends the connection.
"""

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias, cast

import h11
import trio

from runtime.protocol.errors import LocalProtocolError, Malformed

HEAD_MAX = 16 * 1024
"""Bytes of a message's head."""

TARGET_MAX = 4 * 1024
"""Bytes of a request's target."""

_READ = 16 * 1024
_CLOSE_SECONDS = 1.0  # how long a peer may go on sending after an error answer, so that it reads the answer and not a reset
_CLOSE_READS = 64

Headers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A complete request. Header names are lower-case; `path` and `query` are as sent, still percent-encoded."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, the first if there are several; None if there is none."""
        return _header(self.headers, name)


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer."""

    status: int
    headers: Headers = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The value of a header, the first if there are several; None if there is none."""
        return _header(self.headers, name)


def problem(status: int, code: str, detail: str, *, retry_after: int | None = None) -> Response:
    """An error answer (RFC 9457) with a stable `code`; `retry_after` in seconds."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    headers: list[tuple[str, str]] = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    return Response(status, tuple(headers), json.dumps(document).encode())


async def serve_http(
    stream: trio.abc.HalfCloseableStream,
    handler: Callable[[Request], Awaitable[Response]],
    *,
    max_body: int,
    head_timeout: float = 10.0,
    body_timeout: float = 10.0,
    idle_timeout: float = 60.0,
    max_requests: int = 1000,
) -> None:
    """Answers the requests of one connection and closes it. The timeouts are seconds in all, so a dripping peer gains nothing.

    A body of more than `max_body` bytes is refused, before it is read if its length is told. What the handler raises propagates;
    a peer that does not take its answer within `idle_timeout` is `trio.TooSlowError`.
    """
    async with stream:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        for number in range(1, max_requests + 1):
            if number > 1 and not connection.trailing_data[0]:
                with trio.move_on_after(idle_timeout) as idle:
                    try:
                        connection.receive_data(bytes(await stream.receive_some(_READ)))
                    except trio.BrokenResourceError:
                        return  # between two requests nothing is lost, however the peer went
                if idle.cancelled_caught:
                    return
            try:
                request = await _receive_request(stream, connection, max_body, head_timeout, body_timeout)
            except _RequestError as error:
                with trio.fail_after(idle_timeout):
                    await _send_response(stream, connection, error.response, None, close=True)
                await _close_gently(stream)
                return
            if request is None:
                return
            response = await handler(request)
            with trio.fail_after(idle_timeout):
                await _send_response(stream, connection, response, request.method, close=number == max_requests)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()


class HttpClient:
    """Requests over one connection that the caller made and closes; the deadline of a request is the caller's too."""

    def __init__(self, stream: trio.abc.Stream, *, host: str) -> None:
        self._stream = stream
        self._host = host
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX)

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: both ends keep the connection open and the last answer was read."""
        return self._connection.our_state in {h11.IDLE, h11.DONE} and self._connection.their_state in {h11.IDLE, h11.DONE}

    async def request(
        self, method: str, target: str, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", max_body: int
    ) -> Response:
        """Sends a request and returns its complete answer.

        Raises `Malformed` with reason "http_malformed" or "too_large" for what the server sends, `LocalProtocolError` when the
        connection cannot carry another request, and the stream's own errors. After an error the connection is of no use.
        """
        if not self.is_reusable:
            raise LocalProtocolError("this connection is at its end")
        connection = self._connection
        if connection.our_state is h11.DONE:
            connection.start_next_cycle()
        lines = [("host", self._host), *headers]
        if body or method in {"POST", "PUT", "PATCH"}:
            lines.append(("content-length", str(len(body))))
        sent = [connection.send(h11.Request(method=method, target=target, headers=lines))]
        if body:
            sent.append(connection.send(h11.Data(data=body)))
        sent.append(connection.send(h11.EndOfMessage()))
        await self._stream.send_all(b"".join(part for part in sent if part))
        try:
            return await self._receive(max_body)
        except h11.RemoteProtocolError as error:
            raise Malformed(str(error), "http_malformed") from None

    async def _receive(self, max_body: int) -> Response:
        head = await _next_event(self._stream, self._connection)
        while isinstance(head, h11.InformationalResponse) and head.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            head = await _next_event(self._stream, self._connection)
        if not isinstance(head, h11.Response):
            raise Malformed("the connection ended, or changed protocol, before the answer", "http_malformed")
        if _head_size(head.headers) > HEAD_MAX:
            raise Malformed(f"a head of more than {HEAD_MAX} bytes", "too_large")
        body = bytearray()
        while isinstance(event := await _next_event(self._stream, self._connection), h11.Data):
            body += event.data
            if len(body) > max_body:
                raise Malformed(f"a body of more than {max_body} bytes", "too_large")
        return Response(head.status_code, _text(head.headers), bytes(body))


class _RequestError(Exception):
    def __init__(self, response: Response) -> None:
        self.response = response


def _error(status: int, code: str, detail: str) -> _RequestError:
    return _RequestError(problem(status, code, detail))


async def _receive_request(
    stream: trio.abc.Stream, connection: h11.Connection, max_body: int, head_timeout: float, body_timeout: float
) -> Request | None:
    """The next request, or None when the peer ended or sent nothing."""
    try:
        with trio.fail_after(head_timeout):
            head = await _next_event(stream, connection)
    except h11.RemoteProtocolError as error:
        raise _head_error(error, connection) from None
    except trio.TooSlowError:
        if not connection.trailing_data[0]:
            return None
        raise _error(408, "head_timeout", f"no complete head within {head_timeout:g} seconds") from None
    if not isinstance(head, h11.Request):
        return None
    path, query = _check_head(head, max_body)
    body = await _receive_body(stream, connection, max_body, body_timeout)
    return Request(method=head.method.decode(), path=path, query=query, headers=_text(head.headers), body=body)


def _check_head(head: h11.Request, max_body: int) -> tuple[str, str]:
    """Path and query of a head that may be answered."""
    if head.http_version not in {b"1.0", b"1.1"}:
        raise _error(505, "bad_version", "HTTP/1.1 is spoken here")
    if len(head.target) > TARGET_MAX:
        raise _error(414, "target_too_long", f"the target has more than {TARGET_MAX} bytes")
    if _head_size(head.headers) + len(head.target) > HEAD_MAX:
        raise _error(431, "head_too_large", f"the head has more than {HEAD_MAX} bytes")
    names = [name for name, _ in head.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or head.http_version < b"1.1"):
        raise _error(400, "bad_framing", "Transfer-Encoding beside Content-Length, or before HTTP/1.1")
    if _content_length(head.headers) > max_body:
        raise _error(413, "body_too_large", f"the body has more than {max_body} bytes")
    target = head.target.decode("ascii")
    if not target.startswith("/"):
        raise _error(400, "bad_target", "the target must be a path")
    path, _, query = target.partition("?")
    return path, query


async def _receive_body(stream: trio.abc.Stream, connection: h11.Connection, max_body: int, body_timeout: float) -> bytes:
    body = bytearray()
    with trio.move_on_after(body_timeout):
        if connection.they_are_waiting_for_100_continue:
            await stream.send_all(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        while True:
            try:
                event = await _next_event(stream, connection)
            except h11.RemoteProtocolError as error:
                raise _error(400, "bad_body", str(error)) from None
            if not isinstance(event, h11.Data):
                return bytes(body)
            body += event.data
            if len(body) > max_body:
                raise _error(413, "body_too_large", f"the body has more than {max_body} bytes")
    raise _error(408, "body_timeout", f"no complete body within {body_timeout:g} seconds")


async def _send_response(
    stream: trio.abc.Stream, connection: h11.Connection, response: Response, method: str | None, *, close: bool
) -> None:
    """Sends a whole answer. One to HEAD says how long it would be and has no body; 204 and 304 have neither."""
    headers = list(response.headers)
    is_bare = response.status in {204, 304}
    if not is_bare:
        headers.append(("content-length", str(len(response.body))))
    if close:
        headers.append(("connection", "close"))
    head = h11.Response(status_code=response.status, headers=headers, reason=HTTPStatus(response.status).phrase)
    events: list[h11.Event] = [head, h11.EndOfMessage()]
    if response.body and not is_bare and method != "HEAD":
        events.insert(1, h11.Data(data=response.body))
    await stream.send_all(b"".join(connection.send(event) or b"" for event in events))


async def _close_gently(stream: trio.abc.HalfCloseableStream) -> None:
    """Ends our half and reads on for a moment: closing over unread bytes would reset the connection and lose the answer."""
    with trio.move_on_after(_CLOSE_SECONDS):
        await stream.send_eof()
        for _ in range(_CLOSE_READS):
            if not await stream.receive_some(_READ):
                return


async def _next_event(stream: trio.abc.Stream, connection: h11.Connection) -> h11.Event | type[h11.PAUSED]:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some(_READ)))
    return cast("h11.Event | type[h11.PAUSED]", event)


def _head_error(error: h11.RemoteProtocolError, connection: h11.Connection) -> _RequestError:
    if error.error_status_hint != HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        status = error.error_status_hint if error.error_status_hint in {400, 501} else 400
        return _error(status, "bad_request", str(error))
    if b"\n" not in connection.trailing_data[0]:
        return _error(414, "target_too_long", f"the target has more than {TARGET_MAX} bytes")
    return _error(431, "head_too_large", f"the head has more than {HEAD_MAX} bytes")


def _head_size(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """What Content-Length says, 0 without one; h11 has refused anything but one number."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _header(headers: Headers, name: str) -> str | None:
    return next((value for key, value in headers if key == name.lower()), None)
