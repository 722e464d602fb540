"""DNS messages built from their parts, right and wrong ones, and a reader of answers that shares no code with the resolver's."""

import struct
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, NAPTR, SVCB, HTTPS, CAA = 1, 2, 5, 6, 12, 15, 16, 28, 33, 35, 64, 65, 257
IXFR, AXFR, ANY = 251, 252, 255
RD = 0x0100


def labels(name: str) -> bytes:
    """The wire form of a name, its case kept."""
    parts = name.removesuffix(".").split(".") if name.removesuffix(".") else []
    return b"".join(bytes([len(part)]) + part.encode("latin-1") for part in parts) + b"\0"


def question(name: str = "api.example.com", kind: int = A, class_: int = 1) -> bytes:
    return labels(name) + struct.pack("!HH", kind, class_)


def opt(size: int = 1232, *, extended: int = 0, version: int = 0, flags: int = 0, options: bytes = b"") -> bytes:
    return b"\0" + struct.pack("!HHBBHH", 41, size, extended, version, flags, len(options)) + options


def packet(
    *parts: bytes,
    identity: int = 0x1234,
    flags: int = RD,
    counts: tuple[int, int, int, int] | None = None,
) -> bytes:
    """A message; without `counts` the first part is the question and each further one an additional record."""
    if counts is None:
        counts = (1, 0, 0, len(parts) - 1)
    return struct.pack("!HHHHHH", identity, flags, *counts) + b"".join(parts)


def ask(name: str, kind: int = A, class_: int = 1, **more: int) -> bytes:
    return packet(question(name, kind, class_), **more)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer says."""

    id: int
    flags: int
    question: bytes
    addresses: tuple[str, ...]
    ttl: int | None
    opt: bytes | None
    extended_code: int

    @property
    def code(self) -> int:
        return self.extended_code << 4 | self.flags & 15


def read(data: bytes) -> Answer:
    """Takes an answer apart and fails the test for what should not be in one."""
    identity, flags, questions, answers, authorities, additional = struct.unpack("!HHHHHH", data[:12])
    assert flags & 0x8000, "an answer says that it is one"
    assert authorities == 0
    position = 12
    if questions:
        while data[position]:
            assert data[position] < 64
            position += 1 + data[position]
        position += 5
    asked = data[12:position]
    addresses, ttl, record, extended = [], None, None, 0
    for _ in range(answers):
        pointer, kind, class_, ttl, length = struct.unpack("!HHHIH", data[position : position + 12])
        assert (pointer, kind, class_, length) == (0xC00C, 1, 1, 4)
        addresses.append(".".join(map(str, data[position + 12 : position + 16])))
        position += 16
    if additional:
        root, kind, _, extended, version, _, length = struct.unpack("!BHHBBHH", data[position : position + 11])
        assert (root, kind, version, additional) == (0, 41, 0, 1)
        record = data[position : position + 11 + length]
        position += 11 + length
    assert position == len(data), "nothing follows the last record"
    return Answer(id=identity, flags=flags, question=asked, addresses=tuple(addresses), ttl=ttl, opt=record, extended_code=extended)
