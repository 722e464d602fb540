"""The security module behind a queue: what the driver gets, and what becomes of a guest that breaks the rules."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, listen
from runtime.protocol.nsm import DescribeNsm, NsmDescription, decode_response, encode_request
from runtime.simulator.nsm import Faults, SimulatedNsm, make_module_id
from runtime.simulator.pki import make_root
from runtime.simulator.vm.nsm_device import serve_nsm_device
from runtime.simulator.vm.virtqueue import CHAIN_MAX, BadGuest
from tests.simulator.vm.guest import GUEST, INDIRECT, NEXT, OUTSIDE, SIZE, WRITE, Guest

REQUEST = encode_request(DescribeNsm())


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[SimulatedNsm, Guest, trio.Event, list[str]]]:
    """A module, a guest, whether the service has ended, and what the guest did wrong."""
    module = SimulatedNsm(make_root(now=utc_now()), module_id=make_module_id("i-0123456789abcdef0"), pcrs={}, now=utc_now)
    path = str(folder / "nsm.sock")
    over, wrong = trio.Event(), list[str]()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await serve_nsm_device(module, await listen(Unix(path)), task_status=task_status)
        except* BadGuest as group:
            wrong.append(str(group.exceptions[0]))
        over.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            guest = await Guest.connected(path, 1)
            yield module, guest, over, wrong
            await guest.leave()


def call(guest: Guest, first: int = 0) -> int:
    """A request as the driver makes one, in two chains; the address of the response."""
    response = guest.buffer(b"", 0x3000)
    guest.describe(0, first, guest.buffer(REQUEST), len(REQUEST))
    guest.describe(0, first + 1, response, 0x3000, WRITE)
    guest.offer(0, first, first + 1)
    return response - GUEST


async def test_a_call_gets_both_of_its_chains_back_and_the_response_in_the_second(tmp_path: Path) -> None:
    async with served(tmp_path) as (module, guest, over, wrong):
        for first in (0, 2, 4):
            at = call(guest, first)
            assert await guest.used(0) == (first, 0)
            head, length = await guest.used(0)
            assert head == first + 1
            answer = decode_response(bytes(guest.memory[at : at + length]))
            assert isinstance(answer, NsmDescription)
            assert answer.module_id == module.module_id
    assert over.is_set()
    assert wrong == []


async def test_a_call_to_a_stalled_module_is_answered_when_the_stall_is_over_and_other_messages_meanwhile(tmp_path: Path) -> None:
    async with served(tmp_path) as (module, guest, _, wrong):
        stall = trio.Event()
        module.faults = Faults(stall=stall)
        call(guest)
        assert len(await guest.ask(1)) == 8, "the features"
        stall.set()
        assert await guest.used(0) == (0, 0)
        assert (await guest.used(0))[0] == 1
    assert wrong == []


async def test_a_guest_that_never_makes_room_for_a_response_is_served_no_more(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, guest, over, wrong):
        guest.describe(0, 0, guest.buffer(REQUEST), len(REQUEST))
        for _ in range(3):
            guest.offer(0, *([0] * 32))
            await trio.testing.wait_all_tasks_blocked(0.05)
        await over.wait()
        assert wrong == ["more than 64 chains without room for a response"]


def out_of_range(guest: Guest) -> None:
    guest.offer(0, SIZE)


def a_following_one_out_of_range(guest: Guest) -> None:
    guest.describe(0, 0, guest.buffer(b"x"), 1, NEXT, SIZE)
    guest.offer(0, 0)


def a_loop(guest: Guest) -> None:
    guest.describe(0, 0, guest.buffer(b"x"), 1, NEXT, 0)
    guest.offer(0, 0)


def indirect(guest: Guest) -> None:
    guest.describe(0, 0, guest.buffer(bytes(16)), 16, INDIRECT)
    guest.offer(0, 0)


def outside(guest: Guest) -> None:
    guest.describe(0, 0, OUTSIDE, 16)
    guest.offer(0, 0)


def across_the_end(guest: Guest) -> None:
    guest.describe(0, 0, GUEST + len(guest.memory) - 8, 16)
    guest.offer(0, 0)


def around_the_end_of_addresses(guest: Guest) -> None:
    guest.describe(0, 0, 2**64 - 8, 16)
    guest.offer(0, 0)


def too_long(guest: Guest) -> None:
    guest.describe(0, 0, GUEST, CHAIN_MAX + 1)
    guest.offer(0, 0)


def read_behind_written(guest: Guest) -> None:
    guest.describe(0, 0, guest.buffer(b"", 16), 16, WRITE | NEXT, 1)
    guest.describe(0, 1, guest.buffer(b"x"), 1)
    guest.offer(0, 0)


def more_than_there_can_be(guest: Guest) -> None:
    guest.announce(0, SIZE + 1)


def no_room(guest: Guest) -> None:
    guest.describe(0, 0, guest.buffer(REQUEST), len(REQUEST))
    guest.describe(0, 1, guest.buffer(b"", 8), 8, WRITE)
    guest.offer(0, 0, 1)


@pytest.mark.parametrize(
    ("does", "because"),
    [
        (out_of_range, "descriptor 64 of 64"),
        (a_following_one_out_of_range, "descriptor 64 of 64"),
        (a_loop, "a chain without an end"),
        (indirect, "flags 0x4"),
        (outside, "are not in the guest's memory"),
        (across_the_end, "are not in the guest's memory"),
        (around_the_end_of_addresses, "are not in the guest's memory"),
        (too_long, "a chain of more than"),
        (read_behind_written, "something to be read behind what is to be written"),
        (more_than_there_can_be, "65 chains in a queue of 64"),
        (no_room, "room for 8 bytes of a response"),
    ],
)
async def test_a_guest_that_breaks_the_rules_of_a_queue_is_served_no_more(
    does: Callable[[Guest], None], because: str, tmp_path: Path
) -> None:
    async with served(tmp_path) as (_, guest, over, wrong):
        does(guest)
        await over.wait()
        assert len(wrong) == 1
        assert because in wrong[0]
