"""HTTP CONNECT (RFC 9110 section 9.3.6) as the proxy inside takes it: the head is judged whole, and nothing of it goes on. Pure.

The one thing that counts is the target of the request line. No second reader ever sees the head, so fields mean nothing here; a body,
which would be taken for bytes of the tunnel, is refused.
"""

import re
from http import HTTPStatus
from typing import Literal, TypeAlias, get_args

from runtime.enclave.traffic.http_heads import FIELD_LINES, find_head
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.http import Response, problem
from runtime.protocol.errors import Malformed

ConnectFault: TypeAlias = Literal[
    "connect_head", "connect_method", "connect_target", "connect_body", "connect_too_large", "truncated"
]
CONNECT_FAULTS: tuple[ConnectFault, ...] = get_args(ConnectFault)

HEAD_MAX = 8 * 1024

_HEAD = re.compile(rb"([A-Z][-A-Z0-9_]{0,31}) ([!-~]+) HTTP/1\.[01]\r\n(" + FIELD_LINES + rb")\r\n")
_TARGET = re.compile(r"(?:\[([0-9A-Za-z:.%]{2,80})\]|([^:\[\]]*)):([0-9]{1,5})")
_BODY = re.compile(rb"^(?:transfer-encoding:|content-length:[ \t]*+(?!0[ \t]*\r))", re.IGNORECASE | re.MULTILINE)


def head_size(received: bytearray, seen: int) -> int:
    """How many bytes at the front of `received` are the head, 0 while more are needed; the first `seen` were looked at before.

    Raises `Malformed` as soon as it can never be one.
    """
    try:
        return find_head(received, seen, line_max=HEAD_MAX, size_max=HEAD_MAX)
    except Refusal as refusal:
        fault = "connect_too_large" if refusal.response.status in (414, 431) else "connect_head"
        raise Malformed(str(refusal), fault) from None


def decode_connect(head_untrusted: bytes) -> tuple[str, int]:
    """The host and port that a head of `head_size` bytes asks for, in whatever spelling. Raises `Malformed` with a `ConnectFault`."""
    match = _HEAD.fullmatch(head_untrusted)
    if match is None:
        raise Malformed("neither request line nor fields of HTTP/1.1", "connect_head")
    method, target, fields = match.groups()
    if method != b"CONNECT":
        raise Malformed("this proxy knows CONNECT and nothing else", "connect_method")
    if _BODY.search(fields):
        raise Malformed("a request for a tunnel has no body", "connect_body")
    authority = _TARGET.fullmatch(target.decode("ascii"))
    if authority is None:
        raise Malformed("the target must be HOST:PORT, an IPv6 address in brackets", "connect_target")
    bracketed, plain, port = authority.groups()
    return (f"[{bracketed}]" if bracketed else plain), int(port)


def connect_answer(reason: str) -> bytes:
    """What tells the client that the connection stands (`allowed`), or why there is none."""
    if reason == "allowed":
        return b"HTTP/1.1 200 Connection established\r\n\r\n"
    status = _STATUS.get(reason, 403)
    return _encode(problem(status, reason, "the connection is not made"))


_STATUS: dict[str, int] = {
    **dict.fromkeys(CONNECT_FAULTS, 400),
    "connect_method": 405,
    "connect_too_large": 431,
    "proxy_timeout": 408,
    "name_not_found": 502,
    "refused": 502,
    "unreachable": 502,
    "parent_unreachable": 502,
    "parent_answer": 502,
    "timeout": 504,
    "too_many_connections": 503,
}
"""By reason; everything else is the rules' no."""


def _encode(response: Response) -> bytes:
    fields = [*response.headers, ("content-length", str(len(response.body))), ("connection", "close")]
    if response.status == 405:
        fields.append(("allow", "CONNECT"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{lines}\r\n".encode() + response.body
