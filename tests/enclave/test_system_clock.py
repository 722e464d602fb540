"""The kernel's clock: what it is told, over system calls of the test's own, and the one call that may be made to the real one: reading."""

import errno
import os
import time

import pytest

from runtime.enclave.identity.system_clock import ADJ_OFFSET_SINGLESHOT, KernelClock, Timex, clock_adjtime
from runtime.simulator.clock import SLEW_RATE, SimulatedClock


class Kernel:
    """Notes what it is asked, and changes nothing."""

    def __init__(self, refusal: int = 0) -> None:
        self.refusal = refusal
        self.adjusted: list[tuple[int, int]] = []
        self.set: list[tuple[int, int]] = []

    def adjust(self, request: Timex) -> None:
        self._refuse()
        self.adjusted.append((request.modes, request.offset))

    def set_ns(self, clock: int, nanoseconds: int) -> None:
        self._refuse()
        self.set.append((clock, nanoseconds))

    def _refuse(self) -> None:
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))


def clock_over(kernel: Kernel) -> KernelClock:
    return KernelClock(read=lambda: 1000.0, adjust=kernel.adjust, set_ns=kernel.set_ns)


def test_a_step_sets_the_clock_to_what_it_shows_and_the_difference() -> None:
    kernel = Kernel()
    clock_over(kernel).step(-2.5)
    assert kernel.set == [(time.CLOCK_REALTIME, 997_500_000_000)]
    assert kernel.adjusted == []


@pytest.mark.parametrize(("seconds", "microseconds"), [(0.25, 250_000), (-0.000_002, -2)])
def test_a_slew_asks_for_an_adjustment_in_microseconds_and_never_sets_the_clock(seconds: float, microseconds: int) -> None:
    kernel = Kernel()
    clock_over(kernel).slew(seconds)
    assert kernel.adjusted == [(ADJ_OFFSET_SINGLESHOT, microseconds)]
    assert kernel.set == []


def test_a_kernel_that_refuses_is_an_error_of_the_system() -> None:
    clock = clock_over(Kernel(errno.EPERM))
    for move in (clock.step, clock.slew):
        with pytest.raises(PermissionError):
            move(1.0)


def test_the_kernel_fills_the_structure_as_it_is_laid_out_here() -> None:
    """`modes` 0 only reads. The fields stand before, between and behind all that is used."""
    before = time.clock_gettime(time.CLOCK_REALTIME)
    found = Timex(modes=0)
    clock_adjtime(found)
    assert before - 1 <= found.seconds <= time.clock_gettime(time.CLOCK_REALTIME) + 1
    assert 9_000 <= found.tick <= 11_000
    assert found.tolerance == 500 << 16, "500 ppm: the kernel's own bound"
    assert bytes(found)[-44:] == bytes(44)


def test_the_simulated_clock_never_moves_the_hosts_and_slews_as_slowly_as_linux() -> None:
    now = {"host": 1e9, "counter": 0.0}
    clock = SimulatedClock(host=lambda: now["host"], counter=lambda: now["counter"])
    clock.step(-100.0)
    assert clock.read() == 1e9 - 100
    clock.slew(0.01)
    for seconds, gained in ((0.0, 0.0), (10.0, 10 * SLEW_RATE), (20.0, 0.01), (1000.0, 0.01)):
        now["counter"] = seconds
        assert clock.read() == pytest.approx(1e9 - 100 + gained, abs=1e-6)
    clock.slew(-1.0)
    now["counter"] = 1010.0
    assert clock.read() == pytest.approx(1e9 - 100 + 0.01 - 10 * SLEW_RATE, abs=1e-6)
    clock.step(0.0)
    now["counter"] = 9999.0
    assert clock.read() == pytest.approx(1e9 - 100 + 0.01 - 10 * SLEW_RATE, abs=1e-6), "a step ends a slew"
    assert now["host"] == 1e9
