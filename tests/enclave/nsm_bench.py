"""An NSM device that a test may break and mend, and what the module behind it was measured to be."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
import trio

from runtime.enclave.identity.nsm import NitroDevice, Nsm, NsmDevice, NsmError
from runtime.simulator.nsm import Faults, SimulatedDevice, SimulatedNsm
from runtime.simulator.pki import make_root
from tests.enclave.fake_kernel import FakeKernel

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
MEASURED = {0: b"\x10" * 48, 1: b"\x11" * 48, 2: b"\x12" * 48, 3: b"\x13" * 48, 8: b"\x18" * 48}
DEADLINE = 5.0
ROOT = make_root(now=NOW)


def make_module() -> SimulatedNsm:
    """A module as it is at boot."""
    return SimulatedNsm(ROOT, module_id=MODULE_ID, pcrs=MEASURED, now=lambda: NOW)


class Bench:
    """A device that may be broken and mended."""

    def __init__(
        self, device: NsmDevice, stall: Callable[[], None], release: Callable[[], None], fail: Callable[[int | None], None]
    ):
        self.device = device
        self.stall = stall
        self.release = release
        self.fail = fail
        self.nsm = Nsm(device, deadline=DEADLINE)


def bench_over_a_kernel(module: SimulatedNsm) -> Bench:
    kernel = FakeKernel(module.handle)

    def fail(number: int | None) -> None:
        kernel.failure = number

    return Bench(NitroDevice(kernel.ioctl), kernel.stall, kernel.release, fail)


def bench_over_a_socket(module: SimulatedNsm, device: SimulatedDevice) -> Bench:
    def stall() -> None:
        module.faults = Faults(stall=trio.Event())

    def release() -> None:
        stalled, module.faults = module.faults.stall, Faults()
        if stalled is not None:
            stalled.set()

    def fail(number: int | None) -> None:
        module.faults = Faults(errno=number)

    return Bench(device, stall, release, fail)


async def fails_with(reason: str, call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(NsmError) as failure:
        await call()
    assert failure.value.reason == reason
