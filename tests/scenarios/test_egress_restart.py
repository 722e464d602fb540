"""A parent that is killed under load, and one that carries many short connections."""

from contextlib import suppress
from pathlib import Path

import trio

from tests.scenarios.egress_load import PATIENCE, Site, site

CLIENTS = 6
WARM, SHORT = 300, 600
GROWTH_MAX = 1024  # KiB


async def test_when_the_parent_is_killed_under_load_nothing_hangs_and_the_next_one_is_used_at_once(tmp_path: Path) -> None:
    async with site(tmp_path) as it:
        carried, is_over = 0, False
        something = trio.Event()

        async def client() -> None:
            nonlocal carried, something
            while not is_over:
                with trio.fail_after(PATIENCE), suppress(OSError, trio.BrokenResourceError):
                    await it.once()
                    carried += 1
                    something.set()
                    something = trio.Event()

        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(client)
            for _ in range(3):
                held = await it.open()
                with trio.fail_after(PATIENCE):
                    before = carried
                    while carried < before + 2 * CLIENTS:
                        await something.wait()
                await it.restart()
                assert await is_ended(held), "what the old one carried ends with it"
                await it.once()  # without a second attempt
                with trio.fail_after(PATIENCE):
                    before = carried
                    while carried < before + 2 * CLIENTS:
                        await something.wait()
            is_over = True
        assert {flow.reason for flow in it.flows} <= {"allowed", "parent_unreachable", "parent_answer", "client_gone"}


async def is_ended(stream: trio.SocketStream) -> bool:
    async with stream:
        with trio.fail_after(PATIENCE):
            try:
                return await stream.receive_some() == b""
            except trio.BrokenResourceError:
                return True


async def test_many_short_connections_leave_the_parent_as_it_was(tmp_path: Path) -> None:
    async with site(tmp_path) as it:
        await short(it, WARM)
        memory, descriptors = it.resident(), it.descriptors()
        await short(it, SHORT)
        assert it.resident() - memory <= GROWTH_MAX
        with trio.fail_after(PATIENCE):
            while it.descriptors() > descriptors:
                await trio.sleep(0.02)
        assert len(it.flows) == WARM + SHORT
        assert {flow.reason for flow in it.flows} == {"allowed"}


async def short(it: Site, count: int) -> None:
    """So many connections, a few at a time, and until the last is recorded."""
    expected = len(it.flows) + count
    async with trio.open_nursery() as nursery:

        async def some() -> None:
            for _ in range(count // CLIENTS):
                with trio.fail_after(PATIENCE):
                    await it.once()

        for _ in range(CLIENTS):
            nursery.start_soon(some)
    with trio.fail_after(PATIENCE):
        while len(it.flows) < expected:
            await trio.sleep(0.02)
