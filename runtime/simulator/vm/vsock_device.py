"""A vsock device of which the parent's end is unix sockets, so that the parent's own program runs beside a virtual machine unchanged.

Virtio device 19 (VIRTIO 1.2, section 5.10) as a vhost-user back end. When the guest connects to port P of the parent, CID 3, the socket
for P is connected to, and without a listener there the guest is reset at once. Whoever connects to the socket of one of the enclave's
ports is connected to the guest, and cut off when the guest does not listen.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count

import trio

from runtime.net.endpoint import Unix
from runtime.protocol.errors import Malformed
from runtime.simulator.vm.vhost_user import BackEnd
from runtime.simulator.vm.virtqueue import BadGuest, Chain
from runtime.simulator.vm.vsock_packet import ENCLAVE_CID, HEADER_SIZE, PARENT_CID, STREAM, Operation, Packet, decode
from runtime.simulator.vm.vsock_stream import ROOM, VsockStream

CONNECTIONS_MAX = 4096

_TO_GUEST, _FROM_GUEST = 0, 1
_FIRST_PORT = 1 << 30  # of those that this machine's connections come from
_REFUSALS_MAX = 1024

_Key = tuple[int, int]
"""The parent's port and the guest's."""


class VsockDevice:
    """One guest's vsock. `parent_port` gives the socket of a port of the parent's."""

    def __init__(self, parent_port: Callable[[int], Unix]) -> None:
        self._parent_port = parent_port
        self._back_end = BackEnd(2, config=ENCLAVE_CID.to_bytes(8, "little"), stopped=self._forget)
        self._streams: dict[_Key, VsockStream] = {}
        self._turn = trio.Lock()  # first come, first served: streams take turns
        self._room = trio.Event()
        self._ports: Iterator[int] = count(_FIRST_PORT)
        self._refuse, self._refused = trio.open_memory_channel[_Key](_REFUSALS_MAX)

    async def serve(
        self,
        listener: trio.SocketListener,
        enclave_ports: Mapping[int, trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves the one QEMU that connects to `listener`, and who connects to the enclave's ports. Raises `BadGuest`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._tell_refused)
            for port, own in enclave_ports.items():
                nursery.start_soon(self._accept, own, port)
            task_status.started()
            await self._back_end.serve(listener, self._kicked)
            nursery.cancel_scope.cancel()

    async def _kicked(self, index: int) -> None:
        if index == _TO_GUEST:
            self._room.set()
            self._room = trio.Event()
            return
        queue = self._back_end.queues[_FROM_GUEST]
        while (chain := queue.take()) is not None:
            raw = chain.read()
            queue.give_back((chain, 0))
            with suppress(Malformed):  # there is nobody to whom that could be said
                await self._take(*decode(raw))

    async def _take(self, packet: Packet, data: bytes) -> None:
        key = (packet.destination_port, packet.source_port)
        stream = self._streams.get(key)
        is_ours = (packet.source, packet.destination, packet.kind) == (ENCLAVE_CID, PARENT_CID, STREAM)
        if packet.operation == Operation.RESET:
            if stream is not None and is_ours:
                stream.reset()
        elif not is_ours or (stream is None) is not (packet.operation == Operation.REQUEST):
            await self._refuse.send(key)
            if stream is not None and is_ours:
                stream.reset()
        elif stream is None:
            await self._connect(key, packet)
        elif not stream.has_room_for(len(data)):
            await self._refuse.send(key)
            stream.reset()
        else:
            await stream.take(packet.operation, packet.flags, packet.room, packet.forwarded, data)

    async def _connect(self, key: _Key, packet: Packet) -> None:
        """The guest's wish for a connection to the parent. What cannot be connected at once is refused: a guest tries again."""
        parent, _ = key
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            if len(self._streams) >= CONNECTIONS_MAX:
                raise ConnectionRefusedError
            ours.connect(self._parent_port(parent).path)
        except OSError:
            ours.close()
            await self._refuse.send(key)
            return
        stream = self._add(key, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        stream.accept(packet.room, packet.forwarded)
        self._nursery.start_soon(self._run, key, stream, Operation.RESPONSE)

    async def _accept(self, own: trio.SocketListener, port: int) -> None:
        """Connects whoever connects to the enclave's port with the guest."""
        async with own:
            while True:
                client = await own.accept()
                if not self._back_end.queues[_TO_GUEST].is_mapped or len(self._streams) >= CONNECTIONS_MAX:
                    await trio.aclose_forcefully(client)
                    continue
                key = (next(self._ports), port)
                self._nursery.start_soon(self._run, key, self._add(key, client), Operation.REQUEST)

    def _add(self, key: _Key, end: trio.SocketStream) -> VsockStream:
        stream = self._streams[key] = VsockStream(end, partial(self._send, key))
        return stream

    async def _run(self, key: _Key, stream: VsockStream, first: Operation) -> None:
        try:
            await self._send(key, first, 0, b"")
            await stream.run()
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]

    def _forget(self) -> None:
        """The guest's queues are gone, and its connections with them."""
        for stream in self._streams.values():
            stream.reset()

    async def _tell_refused(self) -> None:
        async for key in self._refused:
            await self._send(key, Operation.RESET, 0, b"")

    async def _send(self, key: _Key, operation: Operation, flags: int, data: bytes) -> None:
        """One packet, or as many as the guest's buffers make of its data."""
        stream = self._streams.get(key)
        async with self._turn:
            while True:
                chain = await self._next_chain()
                done = chain.room - HEADER_SIZE if data else 0
                forwarded = 0
                if stream is not None:
                    forwarded = stream.forwarded
                    stream.mark_told()
                packet = Packet(PARENT_CID, ENCLAVE_CID, *key, STREAM, operation, flags, ROOM, forwarded)
                part = data[:done]
                written = chain.write(packet.encode(len(part)) + part)
                self._back_end.queues[_TO_GUEST].give_back((chain, written))
                data = data[done:]
                if not data:
                    return

    async def _next_chain(self) -> Chain:
        queue = self._back_end.queues[_TO_GUEST]
        while (chain := queue.take()) is None:
            await self._room.wait()
        if chain.room <= HEADER_SIZE:
            raise BadGuest(f"room for {chain.room} bytes in a buffer for packets")
        return chain
