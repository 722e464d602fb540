"""The back end of a virtio device in another process: vhost-user, as QEMU speaks it over a unix socket.

Source: QEMU, docs/interop/vhost-user.rst. QEMU hands over the guest's memory, the addresses of the queues and two eventfds for each; from
then on guest and device exchange everything through memory. QEMU is trusted, as it runs beside us; the guest is not (virtqueue.py).
"""

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import IntEnum

import trio

from runtime.simulator.vm.virtqueue import GuestMemory, Region, Virtqueue

_HEAD = struct.Struct("<III")
_PAIR = struct.Struct("<II")
_ADDRESSES = struct.Struct("<IIQQQQ")
_REGION = struct.Struct("<QQQQ")
_CONFIG = struct.Struct("<III")
_U64 = struct.Struct("<Q")

_VERSION_1 = 1 << 32
_PROTOCOL_FEATURES = 1 << 30
_REPLY_ACK, _CONFIG_SPACE = 1 << 3, 1 << 9
_REPLY, _NEED_REPLY, _VERSION = 4, 8, 1
_BODY_MAX = 4096
_DESCRIPTORS_MAX = 8
_NO_DESCRIPTOR = 1 << 8

Kicked = Callable[[int], Awaitable[None]]
"""Called with a queue's number when the guest has put something into it; never twice at once for the same queue. May raise `BadGuest`."""


class _Kind(IntEnum):
    """The requests that a device like these gets."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    GET_CONFIG = 24


class BackEnd:
    """One device with `count` queues and a config space of these bytes; b"" for none."""

    def __init__(self, count: int, *, config: bytes = b"", stopped: Callable[[], None] = lambda: None) -> None:
        self.queues = tuple(Virtqueue() for _ in range(count))
        self._config = config
        self._stopped = stopped
        self._memory = GuestMemory()
        self._listening: list[trio.CancelScope | None] = [None] * count
        self._turns = tuple(trio.Lock() for _ in range(count))

    async def serve(self, listener: trio.SocketListener, kicked: Kicked) -> None:
        """Serves the one QEMU that connects until it goes away. Raises `BadGuest`."""

        async def kick(index: int) -> None:
            async with self._turns[index]:
                await kicked(index)

        async with listener, await listener.accept() as stream, trio.open_nursery() as nursery:
            try:
                while await self._message(stream.socket, nursery, kick):
                    pass
            finally:
                for index in range(len(self.queues)):
                    self._stop(index)
                nursery.cancel_scope.cancel()

    async def _message(self, sock: trio.socket.SocketType, nursery: trio.Nursery, kicked: Kicked) -> bool:
        head, ancillary, _, _ = await sock.recvmsg(_HEAD.size, socket.CMSG_SPACE(4 * _DESCRIPTORS_MAX))
        descriptors = [
            number
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (number,) in struct.iter_unpack("=i", data)
        ]
        head += await _exactly(sock, _HEAD.size - len(head)) if head else b""
        if len(head) < _HEAD.size:
            return False
        kind, flags, size = _HEAD.unpack(head)
        if size > _BODY_MAX:
            raise ConnectionError(f"a vhost-user message of {size} bytes")
        body = await _exactly(sock, size)
        if len(body) < size:
            return False
        reply = self._answer(_Kind(kind), body, descriptors, nursery, kicked)
        if reply is None and flags & _NEED_REPLY:
            reply = _U64.pack(0)
        if reply is not None:
            await _send(sock, _HEAD.pack(kind, _VERSION | _REPLY, len(reply)) + reply)
        return True

    def _answer(self, kind: _Kind, body: bytes, descriptors: Sequence[int], nursery: trio.Nursery, kicked: Kicked) -> bytes | None:
        match kind:
            case _Kind.GET_FEATURES:
                return _U64.pack(_VERSION_1 | _PROTOCOL_FEATURES)
            case _Kind.GET_PROTOCOL_FEATURES:
                return _U64.pack(_REPLY_ACK | (_CONFIG_SPACE if self._config else 0))
            case _Kind.GET_QUEUE_NUM:
                return _U64.pack(len(self.queues))
            case _Kind.GET_CONFIG:
                offset, size, _ = _CONFIG.unpack_from(body)
                return body[: _CONFIG.size] + self._config[offset : offset + size].ljust(size, b"\0")
            case _Kind.SET_MEM_TABLE:
                self._set_memory(body, descriptors)
            case _Kind.SET_VRING_NUM | _Kind.SET_VRING_BASE | _Kind.SET_VRING_ENABLE:
                index, value = _PAIR.unpack(body)
                queue = self.queues[index]
                if kind is _Kind.SET_VRING_NUM:
                    queue.size = value
                elif kind is _Kind.SET_VRING_BASE:
                    queue.next = value
                else:
                    queue.is_enabled = bool(value)
                    nursery.start_soon(kicked, index)  # what came before it was enabled
            case _Kind.SET_VRING_ADDR:
                index, _, table, used, available, _ = _ADDRESSES.unpack(body)
                self.queues[index].addresses = (table, used, available)
            case _Kind.GET_VRING_BASE:
                index, _ = _PAIR.unpack(body)
                self._stop(index)
                return _PAIR.pack(index, self.queues[index].next)
            case _Kind.SET_VRING_KICK:
                self._set_kick(_U64.unpack(body)[0], descriptors, nursery, kicked)
            case _Kind.SET_VRING_CALL:
                value = _U64.unpack(body)[0]
                queue = self.queues[value & 0xFF]
                _close(queue.call)
                queue.call = None if value & _NO_DESCRIPTOR else descriptors[0]
            case _Kind.SET_VRING_ERR:
                for descriptor in descriptors:
                    os.close(descriptor)
            case _:
                pass  # nothing to do: SET_FEATURES accepts what was offered
        return None

    def _set_memory(self, body: bytes, descriptors: Sequence[int]) -> None:
        count = int.from_bytes(body[:4], "little")
        fields = [_REGION.unpack_from(body, 8 + _REGION.size * number) for number in range(count)]
        self._memory = GuestMemory([Region(*each) for each in fields], descriptors)
        for queue in self.queues:
            if queue.is_mapped:
                queue.map(self._memory)

    def _set_kick(self, value: int, descriptors: Sequence[int], nursery: trio.Nursery, kicked: Kicked) -> None:
        if value & _NO_DESCRIPTOR:
            raise ConnectionError("a queue that is to be polled")
        index, kick = value & 0xFF, descriptors[0]
        self.queues[index].map(self._memory)
        os.set_blocking(kick, False)
        scope = self._listening[index] = trio.CancelScope()
        nursery.start_soon(_listen, kick, kicked, index, scope)

    def _stop(self, index: int) -> None:
        queue, listening = self.queues[index], self._listening[index]
        if queue.is_mapped:
            self._stopped()
        queue.unmap()
        if listening is not None:
            listening.cancel()
        _close(queue.call)
        self._listening[index] = queue.call = None


async def _listen(kick: int, kicked: Kicked, index: int, scope: trio.CancelScope) -> None:
    """Until the queue is stopped. The descriptor is closed here, where nobody can be waiting for it."""
    try:
        with scope:
            while True:
                await trio.lowlevel.wait_readable(kick)
                with suppress(BlockingIOError):
                    os.eventfd_read(kick)
                await kicked(index)
    finally:
        os.close(kick)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


async def _exactly(sock: trio.socket.SocketType, size: int) -> bytes:
    """So many bytes, fewer when the other end has gone."""
    data = b""
    while len(data) < size and (part := await sock.recv(size - len(data))):
        data += part
    return data


async def _send(sock: trio.socket.SocketType, data: bytes) -> None:
    while data:
        data = data[await sock.send(data) :]
