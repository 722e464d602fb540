"""The hub: works that wait for descriptors, for time and for trio, in one task."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from runtime.net.hub import IN, OUT, Expired, Hub, Source, Work


@asynccontextmanager
async def running() -> AsyncIterator[Hub]:
    hub = Hub()
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


def pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends


async def settle() -> None:
    """Lets the hub see what is ready."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked()


async def test_a_work_waits_for_one_of_two_descriptors_and_is_told_which() -> None:
    seen: list[tuple[int, bytes]] = []

    async def work(work: Work, left: socket.socket, right: socket.socket) -> None:
        sources = [Source(work.hub, each.fileno()) for each in (left, right)]
        for _ in range(3):
            events = await work.wait(sources[0], IN, sources[1], IN)
            seen.append((events, (left if events else right).recv(10)))
        for source in sources:
            source.close()

    (near, far), (other_near, other_far) = pair(), pair()
    with near, far, other_near, other_far:
        async with running() as hub:
            hub.start(work, near, other_near)
            for sender, data in ((far, b"a"), (other_far, b"b"), (far, b"c")):
                sender.send(data)
                await settle()
            assert not hub.works
            assert not hub.sources
    assert seen == [(IN, b"a"), (0, b"b"), (IN, b"c")]


async def test_what_nobody_waits_for_is_disarmed_and_seen_when_it_is_waited_for_again(autojump_clock: MockClock) -> None:
    got: list[bytes] = []

    async def work(work: Work, end: socket.socket) -> None:
        source = Source(work.hub, end.fileno())
        await work.wait(source, IN)
        got.append(end.recv(1))
        await work.sleep(5)  # meanwhile the rest is readable, for which a loop must not spin
        assert not source.armed
        await work.wait(source, IN)
        got.append(end.recv(10))
        source.close()

    near, far = pair()
    with near, far:
        async with running() as hub:
            hub.start(work, near)
            far.send(b"abc")
            await trio.sleep(6)
    assert got == [b"a", b"bc"]


async def test_a_deadline_raises_where_the_work_waits_and_moving_it_costs_no_entry(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def work(work: Work, end: socket.socket) -> None:
        source = Source(work.hub, end.fileno())
        try:
            while True:
                work.within(10)
                await work.wait(source, IN)
                end.recv(1)
        except Expired:
            ended.append(trio.current_time())
        source.close()

    near, far = pair()
    with near, far:
        async with running() as hub:
            begun = trio.current_time()
            hub.start(work, near)
            for _ in range(20):
                await trio.sleep(1)
                far.send(b"x")
                await settle()
            assert len(hub._due) == 1
            await trio.sleep(11)
    assert ended == [pytest.approx(begun + 30, abs=0.1)]


async def test_a_shorter_deadline_than_the_one_before_is_kept(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def work(work: Work) -> None:
        for seconds in (60, 1):
            near, far = pair()
            with near, far:
                source = Source(work.hub, near.fileno())
                work.within(seconds)
                if seconds == 60:
                    far.send(b"x")
                try:
                    await work.wait(source, IN)
                except Expired:
                    ended.append(trio.current_time())
                source.close()

    async with running() as hub:
        begun = trio.current_time()
        hub.start(work)
        await trio.sleep(2)
        assert ended == [pytest.approx(begun + 1, abs=0.1)]


async def test_haste_ends_waits_that_have_a_grace_and_no_others(autojump_clock: MockClock) -> None:
    ended: dict[str, float] = {}

    async def work(work: Work, name: str, grace: float | None) -> None:
        near, far = pair()
        with near, far:
            source = Source(work.hub, near.fileno())
            if grace is None:
                work.within(20)
            else:
                work.within(20, grace=grace)
            try:
                await work.wait(source, IN)
            except Expired:
                ended[name] = trio.current_time()
            source.close()

    async with running() as hub:
        begun = trio.current_time()
        hub.start(work, "idle", 0.5)
        hub.start(work, "busy", None)
        await trio.sleep(1)
        hub.hasten()
        hub.start(work, "late", 2.0)
        await hub.wait_empty()
    assert ended == {
        "idle": pytest.approx(begun + 1.5, abs=0.1),
        "late": pytest.approx(begun + 3, abs=0.1),
        "busy": pytest.approx(begun + 20, abs=0.1),
    }


async def test_a_work_calls_what_needs_trio_and_its_deadline_cancels_that(autojump_clock: MockClock) -> None:
    results: list[object] = []
    was_cancelled = trio.Event()

    async def double(number: int) -> int:
        await trio.sleep(1)
        return 2 * number

    async def for_ever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            was_cancelled.set()

    async def work(work: Work) -> None:
        results.append(await work.call(double, 21))
        work.within(3)
        try:
            await work.call(for_ever)
        except Expired:
            results.append("expired")

    async with running() as hub:
        hub.start(work)
        await hub.wait_empty()
        await was_cancelled.wait()
    assert results == [42, "expired"]


@pytest.mark.parametrize("is_more_to_do", [False, True])
async def test_what_trio_gives_in_the_turn_in_which_the_deadline_passes_is_closed_and_nobody_gets_it(is_more_to_do: bool) -> None:
    near, far = pair()
    results: list[str] = []
    is_given = trio.Event()

    async def late() -> socket.socket:
        await trio.lowlevel.checkpoint_if_cancelled()
        hub.step(started[0], 0, Expired())  # as the timer does, whose task ran first in this turn
        is_given.set()
        return near

    async def work(work: Work) -> None:
        started.append(work)
        try:
            await work.call(late)
        except Expired:
            results.append("expired")
        if is_more_to_do:
            await work.sleep(3600)
            results.append("slept")

    started: list[Work] = []
    with near, far:
        async with running() as hub:
            hub.start(work)
            await is_given.wait()
            await settle()
            assert (near.fileno(), len(hub.works)) == (-1, int(is_more_to_do))
    assert results == ["expired"]


async def test_the_end_of_the_hub_closes_every_work_where_it_waits() -> None:
    closed: list[str] = []

    async def work(work: Work, name: str, end: socket.socket) -> None:
        source = Source(work.hub, end.fileno())
        try:
            await work.wait(source, IN)
        finally:
            source.close()
            closed.append(name)

    (near, far), (other_near, other_far) = pair(), pair()
    with near, far, other_near, other_far:
        async with running() as hub:
            hub.start(work, "one", near)
            hub.start(work, "two", other_near)
        assert sorted(closed) == ["one", "two"]
        assert not hub.works


async def test_an_error_that_leaves_a_work_ends_the_hub() -> None:
    async def work(work: Work, end: socket.socket) -> None:
        await work.wait(Source(work.hub, end.fileno()), IN)
        raise ValueError("a bug")

    near, far = pair()
    with near, far, pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        async with running() as hub:
            hub.start(work, near)
            far.send(b"x")
            await trio.sleep_forever()


async def test_a_callback_is_called_for_each_time_there_is_something_to_read() -> None:
    got: list[bytes] = []
    near, far = pair()
    with near, far:
        async with running() as hub:
            source = Source(hub, near.fileno())
            source.watch(lambda: got.append(near.recv(1)))
            far.send(b"ab")
            await settle()
            assert got == [b"a", b"b"]
            source.close()
            far.send(b"c")
            await settle()
    assert got == [b"a", b"b"]


async def test_a_work_waits_until_its_descriptor_takes_bytes_again() -> None:
    sent = 0

    async def work(work: Work, end: socket.socket) -> None:
        nonlocal sent
        source = Source(work.hub, end.fileno())
        while sent < 1 << 20:
            try:
                sent += end.send(bytes(1 << 16))
            except BlockingIOError:
                assert await work.wait(source, OUT) & OUT
        source.close()

    near, far = pair()
    with near, far:
        async with running() as hub:
            hub.start(work, near)
            received = 0
            while received < 1 << 20:
                await settle()
                received += len(far.recv(1 << 16))
            await hub.wait_empty()
    assert sent >= received >= 1 << 20


async def test_works_that_end_long_before_their_deadlines_leave_nothing_behind(autojump_clock: MockClock) -> None:
    left, right = socket.socketpair()
    expired: list[float] = []

    async def short(work: Work) -> None:
        work.within(3600)
        await work.sleep(0)
        work.within(3600)
        source = Source(work.hub, left.fileno())
        right.send(b"x")
        await work.wait(source, IN)
        left.recv(1)
        source.close()

    async def long(work: Work) -> None:
        source = Source(work.hub, right.fileno())
        work.within(100)
        try:
            await work.wait(source, IN)
        except Expired:
            expired.append(work.hub.now)
        source.close()

    with left, right:
        async with running() as hub:
            begun = trio.current_time()
            hub.start(long)
            for _ in range(5000):
                ended = hub.start(short)
                while ended in hub.works:
                    await trio.lowlevel.checkpoint()
            assert len(hub._due) < 2000
            await hub.wait_empty()
            assert expired == [pytest.approx(begun + 100, abs=1)]
