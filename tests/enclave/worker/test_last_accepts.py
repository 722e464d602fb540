"""The end of a listener that several processes share: who waits in the kernel's queue is served, who comes later is refused."""

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from runtime.enclave.worker.last_accepts import LastAccepts
from runtime.net.endpoint import Unix, connect, listen
from runtime.net.serve import serve


async def test_whoever_waits_in_the_queue_is_still_accepted_and_the_next_is_refused(tmp_path: Path) -> None:
    at = Unix(str(tmp_path / "public"))
    accepting = LastAccepts(await listen(at))
    waiting = [await connect(at) for _ in range(50)]
    served = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal served
        served += 1
        await stream.send_all(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accepting.end)
        await serve(accepting, handle, limit=100)
    assert served == 50
    for stream in waiting:
        async with stream:
            assert await stream.receive_some() == b"x"
    with pytest.raises(ConnectionRefusedError):
        await connect(at)


async def test_an_accept_under_way_ends_and_takes_no_connection_with_it(tmp_path: Path) -> None:
    at = Unix(str(tmp_path / "public"))
    accepting = LastAccepts(await listen(at))
    accepted: list[trio.SocketStream] = []
    ended = trio.Event()

    async def keep_accepting() -> None:
        with suppress(trio.ClosedResourceError):
            while True:
                accepted.append(await accepting.accept())
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_accepting)
        await trio.testing.wait_all_tasks_blocked()
        first = await connect(at)
        await trio.testing.wait_all_tasks_blocked()
        second = await connect(at)
        await accepting.end()
        await ended.wait()
    assert len(accepted) == 2
    for stream in (first, second, *accepted):
        await stream.aclose()


async def test_a_server_at_its_limit_does_not_keep_the_listener_open(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    at = Unix(str(tmp_path / "public"))
    accepting = LastAccepts(await listen(at))
    release = trio.Event()

    async def handle(_: trio.SocketStream) -> None:
        await release.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(accepting, handle, limit=1))
        served, queued = await connect(at), await connect(at)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await accepting.end()
        with pytest.raises(ConnectionRefusedError):
            await connect(at)
        with trio.fail_after(1), suppress(trio.BrokenResourceError):
            assert await queued.receive_some() == b""
        release.set()
    await served.aclose()
    await queued.aclose()
