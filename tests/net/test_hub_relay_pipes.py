"""How bytes move in a relay on a hub: through pipes where the kernel can, else by copying; and how many pipes there are."""

import fcntl
import os
import random
import stat
from pathlib import Path

import pytest
import trio

from runtime.net.hub_relay import Means, Relayed
from runtime.net.pipes import SIZE, Pipes
from tests.support.relaying import all_of, relaying
from tests.support.sockets import open_descriptors


@pytest.mark.parametrize("size", [1, 8 * 1024, 256 * 1024, 5 << 20])
async def test_where_the_kernel_cannot_splice_bytes_are_copied(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(22, "invalid argument")

    monkeypatch.setattr(os, "splice", refuse)
    await expect_through(size, Means())


@pytest.mark.parametrize("size", [256 * 1024, 5 << 20])
async def test_what_a_socket_does_not_take_from_a_pipe_is_copied_out_of_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.splice

    def only_in(source: int, sink: int, count: int, *, flags: int) -> int:
        if stat.S_ISFIFO(os.fstat(source).st_mode):
            raise OSError(22, "invalid argument")
        return genuine(source, sink, count, flags=flags)

    monkeypatch.setattr(os, "splice", only_in)
    await expect_through(size, Means())


async def test_without_pipes_bytes_are_copied() -> None:
    await expect_through(5 << 20, Means(pipes=Pipes(most=0)))


async def expect_through(size: int, means: Means) -> None:
    data = random.Random(size).randbytes(size)
    async with relaying(means=means) as running:

        async def send() -> None:
            await running.client.send_all(data)
            await running.client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await all_of(running.server) == data
        await running.server.send_eof()
        assert await running.result() == Relayed(left_to_right=size, right_to_left=0, ending="eof")


async def test_bulk_goes_through_a_pipe_and_an_idle_relay_holds_none() -> None:
    before = open_descriptors()
    async with relaying() as running:
        await running.client.send_all(b"small")
        assert await running.server.receive_some(100) == b"small"
        assert pipes_open() == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.client.send_all, bytes(16 << 20))
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert pipes_open() == 1, "the one that is full"
            received = 0
            while received < 16 << 20:
                received += len(await running.server.receive_some(1 << 20))
        assert pipes_open() == 1
        assert running.means.pipes.take() is not None, "it was given back"
        assert pipes_open() == 1
    assert open_descriptors() - before in {0, 2}, "but for the pipe that this test has taken"


def pipes_open() -> int:
    """Pairs of descriptors of pipes, but those that pytest or trio had before."""
    links = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            links.append((each.readlink(), each.name))
        except FileNotFoundError:
            continue
    sizes = [fd for link, fd in links if str(link).startswith("pipe:") and _capacity(int(fd)) == SIZE]
    return len(sizes) // 2


def _capacity(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
