"""The parent's egress port and the world behind it, in the hands of a test: what was asked for, and every byte that got out."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import trio

from runtime.net.endpoint import Unix, listen
from runtime.net.exact import receive_exactly
from runtime.net.serve import serve
from runtime.protocol.egress_frames import (
    PREFIX_SIZE,
    Connect,
    Connected,
    RefusalReason,
    Refused,
    decode_connect,
    encode_answer,
    remaining_size,
)

Behaviour = Literal["echo", "silent", "garbage", "close", "reset"] | RefusalReason


class Outside:
    """Answers for each host as `behaviours` says; everything else is echoed. `asked` are the connects, `bytes_out` all that followed."""

    def __init__(self, path: Path, behaviours: Mapping[str, Behaviour]) -> None:
        self.endpoint = Unix(str(path))
        self.behaviours = dict(behaviours)
        self.asked: list[Connect] = []
        self.bytes_out = bytearray()
        self.open = 0

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection of the enclave."""
        self.open += 1
        try:
            connect = decode_connect(await receive_exactly(stream, remaining_size(await receive_exactly(stream, PREFIX_SIZE))))
            self.asked.append(connect)
            behaviour = self.behaviours.get(connect.host, "echo")
            for reason in get_args(RefusalReason):
                if reason == behaviour:
                    await stream.send_all(encode_answer(Refused(reason=reason)))
                    return
            match behaviour:
                case "silent":
                    await trio.sleep_forever()
                case "garbage":
                    await stream.send_all(b"\xff" * 100)
                case "close":
                    return
                case _:
                    await stream.send_all(encode_answer(Connected()))
                    await self._echo(stream)
        finally:
            self.open -= 1

    async def _echo(self, stream: trio.SocketStream) -> None:
        while data := await stream.receive_some(65536):
            self.bytes_out += data
            await stream.send_all(data)
        await stream.send_eof()


@asynccontextmanager
async def outside(folder: Path, behaviours: Mapping[str, Behaviour] | None = None) -> AsyncGenerator[Outside]:
    """A parent that answers on a socket in `folder`."""
    parent = Outside(folder / "parent.sock", behaviours or {})
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, await listen(parent.endpoint), parent.handle, limit=100))
        yield parent
        nursery.cancel_scope.cancel()
