"""Connects to the first address that takes a connection, of those that a name has (RFC 8305, *Happy Eyeballs*).

Runs at the parent, with addresses that were judged before. A family without a route costs nothing, and an address that is silent costs
a quarter of a second.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
from typing import TypeAlias

import trio

from runtime.net.endpoint import Tcp
from runtime.net.hub import Work
from runtime.net.hub_socket import Plain, connect
from runtime.protocol.address_kind import Address

ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried too (RFC 8305 section 5)."""

Attempt: TypeAlias = Callable[[Address, int], Awaitable[socket.socket]]
"""A connection to one address and port. Raises OSError."""


async def dial(work: Work, addresses: Sequence[Address], port: int) -> Plain:
    """A connection to one of `addresses`, at least one, of which the first ones are preferred.

    Raises OSError, the most telling of all (`_telling`); `Expired` at the deadline of `work`.
    """
    if len(addresses) == 1:  # without a detour through trio
        return await connect(work, Tcp(str(addresses[0]), port))
    return await race(work, addresses, port)


async def race(work: Work, addresses: Sequence[Address], port: int, *, attempt: Attempt | None = None) -> Plain:
    """`dial`, with every attempt in trio."""
    result = await work.call(_race, interleaved(addresses), port, attempt or _attempt)
    if isinstance(result, OSError):
        raise result
    return Plain(work.hub, result)


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, that of the first address first (RFC 8305 section 4)."""
    first = [address for address in addresses if address.version == addresses[0].version]
    others = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]


async def _race(addresses: Sequence[Address], port: int, attempt: Attempt) -> socket.socket | OSError:
    won: list[socket.socket] = []
    errors: list[OSError] = []

    async def run(address: Address, failed: trio.Event) -> None:
        try:
            connected = await attempt(address, port)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if won:
            connected.close()
        else:
            won.append(connected)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(run, address, failed)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        for connected in won:
            connected.close()
        raise
    return won[0] if won else max(errors, key=_telling)


def _telling(error: OSError) -> int:
    """A server that says no is there; one that is silent may be; the rest is about the way to it."""
    return {errno.ECONNREFUSED: 2, errno.ETIMEDOUT: 1}.get(error.errno or 0, 0)


async def _attempt(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = connecting.connect_ex((str(address), port))
        if error == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(connecting)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        connecting.close()
        raise
    return connecting
