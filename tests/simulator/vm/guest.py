"""A guest and its QEMU, as a back end of vhost-user sees them: shared memory, queues in it, and whatever bytes a test wants there."""

import mmap
import os
import socket
import struct
from dataclasses import dataclass
from typing import Self

import trio

from runtime.simulator.vm.vsock_packet import ENCLAVE_CID, PARENT_CID, STREAM, Operation, Packet, decode

SIZE = 64
GUEST, USER = 0x1000_0000, 0x7F00_0000_0000
NEXT, WRITE, INDIRECT = 1, 2, 4
BUFFER = 4096
OUTSIDE = GUEST + (64 << 20)
_MEMORY = 32 << 20
_QUEUE = 0x10000
_AVAILABLE, _USED = 0x4000, 0x8000
_ROOM = 1 << 18


@dataclass
class Queue:
    """Where a queue is, and what of it was used."""

    at: int
    kick: int
    call: int
    offered: int = 0
    seen: int = 0


class Guest:
    """One machine with so many queues, connected to a back end."""

    def __init__(self, stream: trio.SocketStream, count: int) -> None:
        self._stream = stream
        self._file = os.memfd_create("guest")
        os.truncate(self._file, _MEMORY)
        self.memory = mmap.mmap(self._file, _MEMORY)
        eventfd = os.eventfd
        self.queues = [Queue(number * _QUEUE, eventfd(0, os.EFD_NONBLOCK), eventfd(0, os.EFD_NONBLOCK)) for number in range(count)]
        self._free = count * _QUEUE

    @classmethod
    async def connected(cls, path: str, count: int) -> Self:
        """Everything is set up as QEMU does it."""
        guest = cls(await trio.open_unix_socket(path), count)
        await guest.say(5, struct.pack("<IIQQQQ", 1, 0, GUEST, _MEMORY, USER, 0), guest._file)
        for number, queue in enumerate(guest.queues):
            at = USER + queue.at
            await guest.say(8, struct.pack("<II", number, SIZE))
            await guest.say(10, struct.pack("<II", number, 0))
            await guest.say(9, struct.pack("<IIQQQQ", number, 0, at, at + _USED, at + _AVAILABLE, 0))
            await guest.say(13, struct.pack("<Q", number), queue.call)
            await guest.say(12, struct.pack("<Q", number), queue.kick)
            await guest.say(18, struct.pack("<II", number, 1))
        await guest.ask(1)
        return guest

    async def say(self, kind: int, body: bytes = b"", *descriptors: int) -> None:
        """A message without an answer."""
        message = struct.pack("<III", kind, 1, len(body)) + body
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(descriptors)}i", *descriptors))] if descriptors else []
        await self._stream.socket.sendmsg([message], rights)

    async def ask(self, kind: int, body: bytes = b"") -> bytes:
        """A message and the body of its answer."""
        await self.say(kind, body)
        answer = await self._stream.receive_some(4096)
        return bytes(answer[12:])

    async def leave(self) -> None:
        """Ends the connection."""
        await self._stream.aclose()

    def buffer(self, data: bytes, size: int = 0) -> int:
        """A place in memory with these bytes; its address for the guest."""
        at, self._free = self._free, self._free + max(len(data), size)
        self.memory[at : at + len(data)] = data
        return GUEST + at

    def describe(self, number: int, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Writes one descriptor."""
        struct.pack_into("<QIHH", self.memory, self.queues[number].at + 16 * index, address, length, flags, following)

    def offer(self, number: int, *heads: int) -> None:
        """Makes chains available and kicks."""
        queue = self.queues[number]
        for head in heads:
            struct.pack_into("<H", self.memory, queue.at + _AVAILABLE + 4 + 2 * (queue.offered % SIZE), head)
            queue.offered += 1
        self.announce(number, queue.offered)

    def announce(self, number: int, offered: int) -> None:
        """Says how many chains have been made available in all, true or not."""
        queue = self.queues[number]
        struct.pack_into("<H", self.memory, queue.at + _AVAILABLE + 2, offered & 0xFFFF)
        os.eventfd_write(queue.kick, 1)

    async def used(self, number: int) -> tuple[int, int]:
        """The next chain that came back: its head, and how much was written."""
        queue = self.queues[number]
        while struct.unpack_from("<H", self.memory, queue.at + _USED + 2)[0] == queue.seen & 0xFFFF:
            await trio.lowlevel.wait_readable(queue.call)
            os.eventfd_read(queue.call)
        head, length = struct.unpack_from("<II", self.memory, queue.at + _USED + 4 + 8 * (queue.seen % SIZE))
        queue.seen += 1
        return head, length


class VsockGuest:
    """The guest's end of a vsock: packets in and out."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._buffers = [guest.buffer(b"", BUFFER) for _ in range(SIZE)]
        self._outgoing = guest.buffer(b"", 1 << 17)
        for index, address in enumerate(self._buffers):
            guest.describe(0, index, address, BUFFER, WRITE)
        guest.offer(0, *range(SIZE))

    async def send_raw(self, raw: bytes) -> None:
        """Any bytes as a packet."""
        at = self._outgoing - GUEST
        self.guest.memory[at : at + len(raw)] = raw
        self.guest.describe(1, 0, self._outgoing, len(raw))
        self.guest.offer(1, 0)
        await self.guest.used(1)

    async def send(
        self,
        ports: tuple[int, int],
        operation: int,
        data: bytes = b"",
        *,
        flags: int = 0,
        room: int = _ROOM,
        forwarded: int = 0,
        cids: tuple[int, int] = (ENCLAVE_CID, PARENT_CID),
        kind: int = STREAM,
    ) -> None:
        """A packet from our port to the parent's."""
        packet = Packet(*cids, *ports, kind, operation, flags, room, forwarded)
        await self.send_raw(packet.encode(len(data)) + data)

    async def receive(self) -> tuple[Packet, bytes]:
        """The next packet."""
        head, length = await self.guest.used(0)
        at = self._buffers[head] - GUEST
        decoded = decode(bytes(self.guest.memory[at : at + length]))
        self.guest.offer(0, head)
        return decoded

    async def expect(self, operation: Operation) -> Packet:
        """The next packet, which must be this."""
        packet, _ = await self.receive()
        assert packet.operation == operation
        return packet

    async def receive_data(self, size: int) -> bytes:
        """So many bytes, however they are cut."""
        data = b""
        while len(data) < size:
            packet, part = await self.receive()
            assert packet.operation == Operation.DATA
            data += part
        return data
