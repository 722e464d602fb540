"""Relays on a hub between two sockets of a test, whose other ends are trio streams."""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import trio

from runtime.net.hub import Expired, Hub, Work
from runtime.net.hub_socket import Plain, detached
from runtime.net.serve import CONNECTION_ERRORS

Serve = Callable[[Work, Plain], Coroutine[Any, Any, None]]


@asynccontextmanager
async def running_hub() -> AsyncIterator[Hub]:
    """A hub for the length of a block."""
    hub = Hub()
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


def on_hub(serve: Serve) -> Callable[[trio.SocketStream], Coroutine[Any, Any, None]]:
    """A trio handler that has `serve` take over its socket on a hub of its own, and raises what that raises."""

    async def handle(stream: trio.SocketStream) -> None:
        errors: list[Exception] = []

        async def run(work: Work, plain: Plain) -> None:
            try:
                await serve(work, plain)
            except Expired:
                errors.append(trio.TooSlowError())
            except CONNECTION_ERRORS as error:
                errors.append(error)
            finally:
                plain.close()

        async with running_hub() as hub:
            hub.start(run, Plain(hub, detached(stream)))
            await hub.wait_empty()
        if errors:
            raise errors[0]

    return handle


async def dialled(work: Work, dial: Callable[[], Awaitable[trio.SocketStream]]) -> Plain:
    """The connection that `dial` makes in trio. Raises OSError."""

    async def attempt() -> socket.socket | OSError:
        try:
            return detached(await dial())
        except OSError as error:
            return error

    result = await work.call(attempt)
    if isinstance(result, OSError):
        raise result
    return Plain(work.hub, result)


def reset(stream: trio.SocketStream) -> None:
    """Closes so that a TCP peer sees a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
