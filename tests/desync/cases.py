"""What a case is: bytes of a client, and what must become of them."""

from dataclasses import dataclass, replace

HOST = b"a.example"
_HOST_LINE = b"Host: a.example\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HELLO_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request as the customer process must see it. `has` are whole field lines, names in lower case; `lacks` are names."""

    method: bytes = b"GET"
    target: bytes = b"/"
    body: bytes = b""
    host: bytes = HOST
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`raw` is sent, and another request behind it unless `ends`, in which case the client ends its side.

    Accepted (`refused` is empty): `arrives` must reach the customer process and be answered in order. The request behind it must do so
    too when the connection stays open (`closes` is False), must not when it ends (True); None lets either be.
    Refused: behind `arrives` the client gets one more answer, of a status in `refused`, and nothing of the rest arrives anywhere.
    `optional`: handed on, or refused as a whole with a status in `refused`. `why` is the reason where RFC 9112 leaves a choice.
    """

    name: str
    raw: bytes
    arrives: tuple[Arrival, ...] = ()
    refused: frozenset[int] = frozenset()
    optional: bool = False
    closes: bool | None = False
    ends: bool = False
    why: str = ""


def request(
    fields: bytes = b"", body: bytes = b"", *, line: bytes = b"GET / HTTP/1.1", host: bytes = _HOST_LINE, end: bytes = b"\r\n"
) -> bytes:
    """A request of these parts, well formed or not."""
    return line + b"\r\n" + host + fields + end + body


def post(fields: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return request(fields, body, line=b"POST / HTTP/" + version)


def chunked(body: bytes) -> bytes:
    """A request with these bytes where its chunks belong."""
    return post(CHUNKED, body)


POST_HELLO = Arrival(method=b"POST", body=b"hello")
POST_EMPTY = Arrival(method=b"POST")
GET_ROOT = Arrival()


def accept(name: str, raw: bytes, *arrives: Arrival, closes: bool | None = False, why: str = "") -> Case:
    """`arrives` is a plain GET of / unless it is said."""
    return Case(name=name, raw=raw, arrives=arrives or (GET_ROOT,), closes=closes, why=why)


def refuse(name: str, raw: bytes, *statuses: int, after: tuple[Arrival, ...] = (), why: str = "") -> Case:
    """Status 400 unless others are said; `after` are the good requests in front."""
    return Case(name=name, raw=raw, arrives=after, refused=frozenset(statuses or (400,)), why=why)


def either(name: str, raw: bytes, *arrives: Arrival, statuses: tuple[int, ...] = (400,), why: str) -> Case:
    """Handed on exactly so, or refused: both keep the rule."""
    return Case(
        name=name, raw=raw, arrives=arrives or (GET_ROOT,), refused=frozenset(statuses), optional=True, closes=None, why=why
    )


def cut(name: str, raw: bytes, *arrives: Arrival) -> Case:
    """The client ends its side within a message: a 4xx or no answer at all, and no whole message at the customer process."""
    return Case(name=name, raw=raw, arrives=arrives, ends=True, why="RFC 9112 section 8: what is incomplete is no request")


def named(prefix: str, cases: list[Case]) -> list[Case]:
    return [replace(case, name=f"{prefix}: {case.name}") for case in cases]
