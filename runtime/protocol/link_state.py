"""Both ends of the control link as one state machine (protocol/README.md section 2), without I/O: bytes in, messages out.

hello comes first, welcome answers it exactly once, and from then on either end sends its own messages in any order. The table says
it all: in each state, which messages may cross and where they lead. A peer that breaks it sent `Malformed` ("out_of_order"), after which
the connection is lost; our own code breaking it is `LocalProtocolError`.
"""

from enum import Enum, auto
from typing import Literal, TypeAlias

from runtime.protocol.errors import LocalProtocolError, Malformed, Refused
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.link import (
    VERSION,
    Ack,
    Drain,
    Dropped,
    Exit,
    Hello,
    Journal,
    Log,
    Message,
    Metrics,
    MetricsWanted,
    Ping,
    Pong,
    Sealed,
    State,
    Ticket,
    TicketWanted,
    Welcome,
    decode_message,
    encode_message,
)

Role: TypeAlias = Literal["enclave", "parent"]


class Phase(Enum):
    """How far a connection has come."""

    CONNECTED = auto()
    GREETED = auto()
    OPEN = auto()


_TABLE: dict[Phase, dict[Role, dict[type[Message], Phase]]] = {
    Phase.CONNECTED: {"enclave": {Hello: Phase.GREETED}, "parent": {}},
    Phase.GREETED: {"enclave": {}, "parent": {Welcome: Phase.OPEN}},
    Phase.OPEN: {
        "enclave": dict.fromkeys((State, Journal, Log, Sealed, Exit, Dropped, Metrics, TicketWanted, Pong), Phase.OPEN),
        "parent": dict.fromkeys((Ticket, Drain, MetricsWanted, Ack, Ping), Phase.OPEN),
    },
}
_PEER: dict[Role, Role] = {"enclave": "parent", "parent": "enclave"}


class LinkConnection:
    """One connection, seen from `role`. Feed `receive_data`, take `next_message` until None; `send` gives the bytes to write."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._decoder = FrameDecoder()
        self.phase = Phase.CONNECTED

    def receive_data(self, data: bytes) -> None:
        """Adds what arrived; take every message before the next call, so that one frame and one read are all that is held."""
        self._decoder.receive_data(data)

    def next_message(self) -> Message | None:
        """The next message, None when more bytes are needed. Raises `Malformed`, or `Refused` for an unknown version."""
        frame = self._decoder.next_frame()
        if frame is None:
            return None
        message = decode_message(frame[0])
        following = _TABLE[self.phase][_PEER[self._role]].get(type(message))
        if following is None:
            raise Malformed(f"{message.KIND} from the {_PEER[self._role]} while {self.phase.name.lower()}", "out_of_order")
        _check_version(message)
        self.phase = following
        return message

    def send(self, message: Message) -> bytes:
        """The bytes of `message`, which must be ours to send now. Raises `LocalProtocolError`."""
        following = _TABLE[self.phase][self._role].get(type(message))
        if following is None:
            raise LocalProtocolError(f"{message.KIND} by the {self._role} while {self.phase.name.lower()}")
        frame = encode_message(message)
        self.phase = following
        return frame


def _check_version(message: Message) -> None:
    offered = message.versions if isinstance(message, Hello) else (message.version,) if isinstance(message, Welcome) else (VERSION,)
    if VERSION not in offered:
        raise Refused("unsupported_version", f"version {VERSION} is the only one, not {offered}")
