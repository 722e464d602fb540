"""The two frames that open an egress connection (protocol/README.md section 2); raw bytes follow them.

```
connect   = ["connect", {0: tstr, 1: uint}]     ; enclave: name or address of at most 253 characters, port
connected = ["connected", {}]                   ; parent
refused   = ["refused", {0: reason}]            ; parent
reason    = "name_not_found" / "unreachable" / "refused" / "timeout" / "forbidden"
```
What follows a frame belongs to somebody else, so a reader takes exactly `PREFIX_SIZE` bytes, then exactly what `remaining_size` says.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.errors import LocalProtocolError, Malformed
from runtime.protocol.fields import Fields
from runtime.protocol.framing import encode_frame

RefusalReason: TypeAlias = Literal["name_not_found", "unreachable", "refused", "timeout", "forbidden"]

PREFIX_SIZE = 4
BODY_MAX = 512
"""Bytes of a frame here; the longest connect takes 272."""

_REASONS: tuple[RefusalReason, ...] = get_args(RefusalReason)
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """The enclave wants a connection to `port` of `host`, a name or an address without brackets or zone."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """There is one: raw bytes follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """There is none, and this connection ends."""

    reason: RefusalReason


def remaining_size(prefix: bytes) -> int:
    """How many bytes follow the first `PREFIX_SIZE`. Raises `Malformed` when that is more than `BODY_MAX`."""
    size = int.from_bytes(prefix, "big")
    if len(prefix) != PREFIX_SIZE or size > BODY_MAX:
        raise Malformed(f"a frame of {size} bytes, {BODY_MAX} allowed", "too_large")
    return size


def encode_connect(connect: Connect) -> bytes:
    """The frame. A host or port that the other end would refuse is the caller's to check: `LocalProtocolError`."""
    if not _is_destination(connect.host, connect.port):
        raise LocalProtocolError(f"{connect.host!r:.80} port {connect.port} cannot be connected to")
    return encode_frame(["connect", {0: connect.host, 1: connect.port}])


def decode_connect(body_untrusted: bytes) -> Connect:
    """What the enclave asks of the parent. Raises `Malformed`."""
    kind, fields = _frame(body_untrusted)
    if kind != "connect":
        raise Malformed("connect must come first", "out_of_order")
    connect = Connect(host=fields.text(0, most=253), port=fields.uint(1, most=65535))
    fields.finish()
    if not _is_destination(connect.host, connect.port):
        raise Malformed("connect names no possible host and port")
    return connect


def encode_answer(answer: Connected | Refused) -> bytes:
    """The parent's frame."""
    return encode_frame(["connected", {}] if isinstance(answer, Connected) else ["refused", {0: answer.reason}])


def decode_answer(body_untrusted: bytes) -> Connected | Refused:
    """What the parent answers. Raises `Malformed`."""
    kind, fields = _frame(body_untrusted)
    answer: Connected | Refused
    match kind:
        case "connected":
            answer = Connected()
        case "refused":
            answer = Refused(reason=_reason(fields.text(0)))
        case _:
            raise Malformed("an answer must be connected or refused", "out_of_order")
    fields.finish()
    return answer


def _reason(value: str) -> RefusalReason:
    for reason in _REASONS:
        if value == reason:
            return reason
    raise Malformed(f"refused.0 must be one of {', '.join(_REASONS)}")


def _is_destination(host: str, port: int) -> bool:
    return bool(_HOST.fullmatch(host)) and 1 <= port <= 65535


def _frame(body_untrusted: bytes) -> tuple[str, Fields]:
    value: Value = cbor.decode(body_untrusted, max_size=BODY_MAX)
    match value:
        case [str(kind), dict(body)]:
            return kind, Fields(body, kind)
        case _:
            raise Malformed("a frame must be [type, body]")
