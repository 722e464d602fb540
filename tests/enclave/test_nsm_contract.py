"""One contract for every NSM device: the simulated one over its socket, the real one over a kernel of the tests' own, and /dev/nsm itself.

The last is a case only on a machine that has the device. Nothing here asks for a clean module: PCRs stay as earlier runs left them.
"""

import errno
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import cbor2
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.enclave.identity.nsm import NSM_PATH, NitroDevice, Nsm
from runtime.net.endpoint import Unix, listen
from runtime.protocol.nsm import (
    DescribeNsm,
    encode_request,
)
from runtime.simulator.nsm import SimulatedDevice, SimulatedNsm, serve_nsm
from tests.enclave.fake_kernel import FakeKernel
from tests.enclave.nsm_bench import (
    DEADLINE,
    MEASURED,
    MODULE_ID,
    Bench,
    bench_over_a_kernel,
    bench_over_a_socket,
    fails_with,
    make_module,
)


@pytest.fixture
def module() -> SimulatedNsm:
    return make_module()


@pytest.fixture(params=["simulated", "nitro"])
async def faulty(
    request: pytest.FixtureRequest, module: SimulatedNsm, nursery: trio.Nursery, tmp_path: Path
) -> AsyncIterator[Bench]:
    """A bench over each device that can be broken."""
    if request.param == "nitro":
        bench = bench_over_a_kernel(module)
        yield bench
        bench.release()
        return
    path = str(tmp_path / "nsm")
    await nursery.start(serve_nsm, module, await listen(Unix(path)))
    async with SimulatedDevice(path) as device:
        yield bench_over_a_socket(module, device)


@pytest.fixture(params=["simulated", "nitro", *(["real"] if Path(NSM_PATH).exists() else [])])
async def nsm(request: pytest.FixtureRequest, module: SimulatedNsm, nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Nsm]:
    """Every device."""
    if request.param == "real":
        yield Nsm(NitroDevice())
    elif request.param == "nitro":
        yield Nsm(NitroDevice(FakeKernel(module.handle).ioctl))
    else:
        path = str(tmp_path / "nsm")
        await nursery.start(serve_nsm, module, await listen(Unix(path)))
        async with SimulatedDevice(path) as device:
            yield Nsm(device)


async def unlocked_pcr(nsm: Nsm) -> int:
    return min(set(range(16, 32)) - (await nsm.describe()).locked_pcrs)


def pcrs_in(document: bytes) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = cbor2.loads(cbor2.loads(document)[2])["pcrs"]
    return pcrs


# What the module does


async def test_the_module_describes_itself(nsm: Nsm) -> None:
    described = await nsm.describe()
    assert described.max_pcrs == 32
    assert described.digest == "SHA384"
    assert described.module_id.startswith("i-")
    assert described.locked_pcrs >= set(range(16))


async def test_every_pcr_can_be_read_and_its_lock_agrees_with_the_description(nsm: Nsm) -> None:
    described = await nsm.describe()
    for index in range(described.max_pcrs):
        pcr = await nsm.describe_pcr(index)
        assert len(pcr.value) == 48
        assert pcr.locked is (index in described.locked_pcrs)


async def test_extending_hashes_the_old_value_with_the_raw_data(nsm: Nsm) -> None:
    index = await unlocked_pcr(nsm)
    before = (await nsm.describe_pcr(index)).value
    extended = await nsm.extend_pcr(index, b"\x01\x02\x03")
    assert extended == hashlib.sha384(before + b"\x01\x02\x03").digest()
    assert (await nsm.describe_pcr(index)).value == extended


async def test_a_locked_pcr_can_be_neither_extended_nor_locked_again(nsm: Nsm) -> None:
    index = await unlocked_pcr(nsm)
    await nsm.extend_pcr(index, b"once")
    await nsm.lock_pcr(index)
    value = (await nsm.describe_pcr(index)).value
    await fails_with("nsm_read_only_index", lambda: nsm.extend_pcr(index, b"twice"))
    await fails_with("nsm_read_only_index", lambda: nsm.lock_pcr(index))
    assert (await nsm.describe_pcr(index)).value == value


async def test_the_pcrs_of_the_platform_are_locked_from_boot(nsm: Nsm) -> None:
    for index in (0, 4, 15):
        await fails_with("nsm_read_only_index", partial(nsm.extend_pcr, index, b"x"))


async def test_a_range_that_is_locked_already_may_be_locked_again(nsm: Nsm) -> None:
    before = await nsm.describe()
    await nsm.lock_pcrs(16)
    await nsm.lock_pcrs(0)
    assert await nsm.describe() == before


async def test_an_index_or_a_range_beyond_the_last_pcr_is_refused(nsm: Nsm) -> None:
    before = await nsm.describe()
    for call in (
        lambda: nsm.describe_pcr(32),
        lambda: nsm.extend_pcr(32, b"x"),
        lambda: nsm.lock_pcr(65535),
        lambda: nsm.lock_pcrs(33),
    ):
        await fails_with("nsm_invalid_index", call)
    assert await nsm.describe() == before


async def test_random_bytes_come_and_differ(nsm: Nsm) -> None:
    first, second = await nsm.random(), await nsm.random()
    assert len(first) >= 1
    assert first != second


async def test_a_document_shows_locked_pcrs_only(nsm: Nsm) -> None:
    index = await unlocked_pcr(nsm)
    value = await nsm.extend_pcr(index, b"measured")
    assert index not in pcrs_in(await nsm.attest())
    await nsm.lock_pcr(index)
    shown = pcrs_in(await nsm.attest())
    assert shown[index] == value
    assert shown.keys() == (await nsm.describe()).locked_pcrs


async def test_three_fields_of_1024_bytes_pass_at_once(nsm: Nsm) -> None:
    document = await nsm.attest(nonce=b"n" * 1024, user_data=b"u" * 1024, public_key=b"p" * 1024)
    payload = cbor2.loads(cbor2.loads(document)[2])
    assert [payload[field] for field in ("nonce", "user_data", "public_key")] == [b"n" * 1024, b"u" * 1024, b"p" * 1024]


async def test_an_empty_field_is_not_an_absent_one(nsm: Nsm) -> None:
    payload = cbor2.loads(cbor2.loads(await nsm.attest(user_data=b""))[2])
    assert (payload["user_data"], payload["nonce"]) == (b"", None)


async def test_what_is_over_a_limit_never_reaches_the_device(nsm: Nsm) -> None:
    index = await unlocked_pcr(nsm)
    value = (await nsm.describe_pcr(index)).value
    await fails_with("nsm_input_too_large", lambda: nsm.attest(nonce=bytes(1025)))
    await fails_with("nsm_input_too_large", lambda: nsm.attest(user_data=bytes(1025)))
    await fails_with("nsm_input_too_large", lambda: nsm.attest(public_key=bytes(1025)))
    await fails_with("nsm_input_too_large", lambda: nsm.extend_pcr(index, bytes(4096)))
    assert (await nsm.describe_pcr(index)).value == value


# How the device is used


async def test_the_driver_refuses_a_request_over_4096_bytes_and_works_on(faulty: Bench) -> None:
    with pytest.raises(OSError) as refused:
        await faulty.device.exchange(bytes(4097))
    assert refused.value.errno == errno.EMSGSIZE
    assert (await faulty.nsm.describe()).module_id == MODULE_ID


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EIO, "nsm_io"),
        (errno.EFAULT, "nsm_io"),
        (errno.ENOMEM, "nsm_io"),
        (errno.EINTR, "nsm_interrupted"),
        (errno.ETIMEDOUT, "nsm_timeout"),
        (errno.EMSGSIZE, "nsm_input_too_large"),
        (errno.ENODATA, "nsm_no_data"),
        (errno.ENODEV, "nsm_unavailable"),
    ],
)
async def test_an_errno_of_the_driver_has_its_reason_and_is_not_for_ever(faulty: Bench, number: int, reason: str) -> None:
    faulty.fail(number)
    await fails_with(reason, faulty.nsm.random)
    faulty.fail(None)
    assert await faulty.nsm.random()


async def test_fifty_calls_at_once_are_carried_out_one_by_one_in_their_order(faulty: Bench) -> None:
    order = []

    async def extend(number: int) -> None:
        order.append(number)
        await faulty.nsm.extend_pcr(16, bytes([number]))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(extend, number)
    expected = bytes(48)
    for number in order:
        expected = hashlib.sha384(expected + bytes([number])).digest()
    assert len(order) == 50
    assert (await faulty.nsm.describe_pcr(16)).value == expected


async def test_a_stalled_call_fails_at_its_deadline_others_at_once_and_all_is_well_when_it_returns(
    faulty: Bench, mock_clock: MockClock
) -> None:
    faulty.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails_with, "nsm_stalled", faulty.nsm.random)
        await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE)
    started = trio.current_time()
    for _ in range(20):
        await fails_with("nsm_stalled", faulty.nsm.describe)
    assert trio.current_time() == started
    faulty.release()
    await faulty.device.exchange(encode_request(DescribeNsm()))  # waits until the stalled call has returned
    assert (await faulty.nsm.describe()).module_id == MODULE_ID


async def test_those_who_wait_behind_a_stalled_call_are_told_too(faulty: Bench, mock_clock: MockClock) -> None:
    faulty.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails_with, "nsm_stalled", faulty.nsm.random)
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        for _ in range(10):
            nursery.start_soon(fails_with, "nsm_stalled", faulty.nsm.random)
        await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE - 1)
    assert trio.current_time() <= DEADLINE


async def test_a_caller_that_is_cancelled_leaves_at_once_and_the_next_gets_its_own_answer(
    faulty: Bench, mock_clock: MockClock
) -> None:
    faulty.stall()
    answers = []
    first, waiting = trio.CancelScope(), trio.CancelScope()

    async def read(index: int, scope: trio.CancelScope) -> None:
        with scope:
            answers.append((index, (await faulty.nsm.describe_pcr(index)).value))

    async with trio.open_nursery() as nursery:
        for index, scope in ((0, first), (1, waiting), (2, trio.CancelScope()), (3, trio.CancelScope())):
            nursery.start_soon(read, index, scope)
            await wait_all_tasks_blocked()
        first.cancel()
        waiting.cancel()
        await wait_all_tasks_blocked()
        assert first.cancelled_caught
        assert waiting.cancelled_caught
        faulty.release()
    assert answers == [(2, MEASURED[2]), (3, MEASURED[3])]
    assert trio.current_time() == 0


async def test_a_full_queue_refuses_at_once(faulty: Bench, mock_clock: MockClock) -> None:
    nsm = Nsm(faulty.device, deadline=DEADLINE, waiting_max=3)
    faulty.stall()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(nsm.random)
        await wait_all_tasks_blocked()
        await fails_with("nsm_busy", nsm.random)
        faulty.release()
