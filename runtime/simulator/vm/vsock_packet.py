"""The header of a packet between a guest's vsock and its device. Pure.

Source: Virtual I/O Device (VIRTIO) 1.2, section 5.10.6. Little-endian, 44 bytes, then the data. Each side says in every packet how large
its buffer is and how many bytes have left it, and sends no more than fit.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from runtime.protocol.errors import Malformed

HEADER_SIZE = 44
STREAM = 1
ENCLAVE_CID = 16
PARENT_CID = 3
"""The CID of the parent instance on Nitro."""

NO_RECEIVE, NO_SEND = 1, 2
"""Flags of a `SHUTDOWN`: its sender will receive, or send, no more."""

_HEADER = struct.Struct("<QQIIIHHIII")


class Operation(IntEnum):
    """What a packet is about."""

    REQUEST = 1
    RESPONSE = 2
    RESET = 3
    SHUTDOWN = 4
    DATA = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet's header, without the length: that is the data's."""

    source: int
    destination: int
    source_port: int
    destination_port: int
    kind: int
    operation: int
    flags: int = 0
    room: int = 0
    forwarded: int = 0

    def encode(self, length: int = 0) -> bytes:
        """The header of a packet with so many bytes of data."""
        return _HEADER.pack(
            *(self.source, self.destination, self.source_port, self.destination_port, length),
            *(self.kind, self.operation, self.flags, self.room, self.forwarded),
        )


def decode(raw: bytes) -> tuple[Packet, bytes]:
    """The packet and its data. Raises `Malformed` for one that is too short, or says that it has more data than was sent."""
    if len(raw) < HEADER_SIZE:
        raise Malformed(f"a packet of {len(raw)} bytes")
    source, destination, source_port, destination_port, length, *rest = _HEADER.unpack_from(raw)
    if length > len(raw) - HEADER_SIZE:
        raise Malformed(f"a packet with {len(raw) - HEADER_SIZE} of {length} bytes of data")
    return Packet(source, destination, source_port, destination_port, *rest), raw[HEADER_SIZE : HEADER_SIZE + length]
