"""What a case of an answer is: bytes of the customer process, and what must become of them."""

from dataclasses import dataclass, replace

from tests.desync.cases import request

GET = request(line=b"GET /scripted HTTP/1.1")
HEAD = request(line=b"HEAD /scripted HTTP/1.1")
OLD = request(line=b"GET /scripted HTTP/1.0")
EMPTY_POST = request(b"Content-Length: 0\r\n", line=b"POST /scripted HTTP/1.1")
POST = request(b"Content-Length: 100\r\n", b"hello", line=b"POST /scripted HTTP/1.1")
WEBSOCKET = request(
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    line=b"GET /scripted HTTP/1.1",
)
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCase:
    """`answer` is what the customer process sends to `request`, in one piece or byte by byte, closing behind it or not.

    `outcome` is "delivered" (`status`, `body` and fields as said), "refused" (502), "cut" (502, or an answer that is visibly not
    whole) or "switched" (101, and `body` behind it). `optional`: 502 or a cut will do as well. `clean`: the connection to the customer
    process may serve the next request. `follows`: the client sends a second request behind the first.
    """

    name: str
    answer: bytes
    request: bytes = GET
    closes: bool = False
    early: bool = False
    outcome: str = "delivered"
    optional: bool = False
    status: int = 200
    body: bytes = b"ok"
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()
    clean: bool = True
    follows: bool = True
    why: str = ""


def answer(fields: bytes = b"Content-Length: 2\r\n", body: bytes = b"ok", *, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return line + b"\r\n" + fields + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return answer(b"Transfer-Encoding: chunked\r\n", body)


def refused(name: str, answer: bytes, *, closes: bool = False, request: bytes = GET, why: str = "") -> AnswerCase:
    return AnswerCase(name=name, answer=answer, closes=closes, request=request, outcome="refused", clean=False, why=why)


def cut(
    name: str, answer: bytes, *, closes: bool = False, request: bytes = GET, body: bytes = b"hello", why: str = ""
) -> AnswerCase:
    return AnswerCase(name=name, answer=answer, closes=closes, request=request, outcome="cut", body=body, clean=False, why=why)


def poisoned(
    name: str, answer: bytes, *, status: int = 200, body: bytes = b"ok", request: bytes = GET, optional: bool = False
) -> AnswerCase:
    return AnswerCase(name=name, answer=answer + POISON, status=status, body=body, request=request, clean=False, optional=optional)


def named(prefix: str, cases: list[AnswerCase]) -> list[AnswerCase]:
    return [replace(case, name=f"{prefix}: {case.name}") for case in cases]
