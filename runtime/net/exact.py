"""Reads exactly so many bytes, for streams that change their meaning after a header: what follows it stays in the kernel."""

import trio

from runtime.protocol.errors import Malformed


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """The next `size` bytes of `stream`. Raises `Malformed` with reason "truncated" when it ends before; the deadline is the caller's."""
    received = bytearray()
    while len(received) < size:
        data = await stream.receive_some(size - len(received))
        if not data:
            raise Malformed(f"the stream ended after {len(received)} of {size} bytes", "truncated")
        received += data
    return bytes(received)
