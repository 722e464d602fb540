"""What only one of the two devices shows: threads in the kernel and the buffers it is given, the socket and what is lost on it."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.enclave.identity import nsm as nsm_module
from runtime.enclave.identity.nsm import NitroDevice, Nsm
from runtime.net.endpoint import Unix, listen
from runtime.protocol.nsm import RESPONSE_MAX, Attested, PcrLocked, PcrsLocked, encode_response
from runtime.simulator.nsm import Faults, SimulatedDevice, SimulatedNsm, serve_nsm
from tests.enclave.fake_kernel import FakeKernel
from tests.enclave.nsm_bench import DEADLINE, fails_with, make_module


@pytest.fixture
def module() -> SimulatedNsm:
    return make_module()


async def test_a_turn_that_does_not_come_within_the_deadline_is_refused(
    module: SimulatedNsm, nursery: trio.Nursery, tmp_path: Path, autojump_clock: MockClock
) -> None:
    module.faults = Faults(delay=3)
    path = str(tmp_path / "nsm")
    await nursery.start(serve_nsm, module, await listen(Unix(path)))
    async with SimulatedDevice(path) as device, trio.open_nursery() as callers:
        nsm = Nsm(device, deadline=DEADLINE)
        callers.start_soon(nsm.random)
        await wait_all_tasks_blocked()
        callers.start_soon(nsm.random)
        await wait_all_tasks_blocked()
        await fails_with("nsm_busy", nsm.random)  # its turn would come after 6 seconds
        assert trio.current_time() == DEADLINE


async def test_calls_never_pile_up_in_the_kernel(module: SimulatedNsm, mock_clock: MockClock) -> None:
    kernel = FakeKernel(module.handle)
    nsm = Nsm(NitroDevice(kernel.ioctl), deadline=DEADLINE)
    kernel.stall()
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, "nsm_stalled", nsm.random)
            await trio.to_thread.run_sync(kernel.entered.wait)
            mock_clock.jump(DEADLINE)
    assert kernel.calls == 1
    kernel.release()


async def test_no_more_than_one_thread_is_in_the_kernel(module: SimulatedNsm) -> None:
    kernel = FakeKernel(module.handle)
    nsm = Nsm(NitroDevice(kernel.ioctl))
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(nsm.random)
    assert (kernel.calls, kernel.most_threads) == (50, 1)


async def test_a_response_that_fills_the_buffer_arrives_whole() -> None:
    frame = len(encode_response(Attested(document=bytes(RESPONSE_MAX)))) - RESPONSE_MAX
    document = bytes(range(256)) * 48
    response = encode_response(Attested(document=document[: RESPONSE_MAX - frame]))
    assert len(response) == RESPONSE_MAX
    assert await Nsm(NitroDevice(FakeKernel(lambda _: response).ioctl)).attest() == document[: RESPONSE_MAX - frame]


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\x00" * 64,
        encode_response(PcrLocked()) + b"\x00",
        encode_response(PcrsLocked()),
        encode_response(Attested(document=bytes(RESPONSE_MAX))),  # cut by the kernel
    ],
)
async def test_a_response_that_makes_no_sense_is_an_error_of_the_protocol(response: bytes) -> None:
    nsm = Nsm(NitroDevice(FakeKernel(lambda _: response).ioctl))
    await fails_with("nsm_protocol", lambda: nsm.lock_pcr(16))


async def test_without_a_device_the_module_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nsm_module, "NSM_PATH", str(tmp_path / "nsm"))
    await fails_with("nsm_unavailable", Nsm(NitroDevice()).describe)


async def test_the_system_call_itself_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nsm").touch()  # a file that knows no ioctl: the kernel answers ENOTTY
    monkeypatch.setattr(nsm_module, "NSM_PATH", str(tmp_path / "nsm"))
    await fails_with("nsm_io", Nsm(NitroDevice()).describe)


async def test_a_lost_connection_fails_one_call_and_keeps_the_pcrs(
    module: SimulatedNsm, nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = str(tmp_path / "nsm")
    await nursery.start(serve_nsm, module, await listen(Unix(path)))
    async with SimulatedDevice(path) as device:
        nsm = Nsm(device)
        value = await nsm.extend_pcr(16, b"before")
        module.faults = Faults(drop_every=2)
        assert await nsm.random()
        await fails_with("nsm_io", nsm.random)
        assert (await nsm.describe_pcr(16)).value == value


async def test_without_a_server_the_simulated_device_is_unavailable(tmp_path: Path) -> None:
    async with SimulatedDevice(str(tmp_path / "nsm")) as device:
        await fails_with("nsm_unavailable", Nsm(device).describe)
