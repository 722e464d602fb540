"""The security module fails, lies about the time, was used before, or signs under the wrong root. Each ends in its reason."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.identity.nsm import Nsm
from runtime.net.endpoint import Unix, listen
from runtime.protocol.measurements import CONFIG_PCR, KEY_PCR, LIVE_PCR, config_commitment
from runtime.protocol.nsm import Attest, ExtendPcr, GetRandom, LockPcr, LockPcrs, NsmErrorCode
from runtime.simulator.nsm import Faults, SimulatedDevice, SimulatedNsm, make_module_id, serve_nsm
from runtime.verifier.appraise import AppraisalFailed, appraise
from runtime.verifier.reasons import Reason
from runtime.verifier.reference import ANY_MEASUREMENT
from runtime.verifier.roots import aws_root
from tests.scenarios.boots import Booted, Enclave, MemoryDevice, enclave_of
from tests.scenarios.waiting import skip_waiting
from tests.scenarios.world import INSTANCE, START, World, open_world

MODULE_ID = make_module_id(INSTANCE)


@asynccontextmanager
async def enclave_over_a_socket(world: World, module: SimulatedNsm | None) -> AsyncIterator[Enclave]:
    """An enclave of "payments" whose module is behind a socket; None: there is none."""
    image = world.image()
    world.register(image)
    path = str(world.folder / "nsm.sock")
    async with SimulatedDevice(path) as device:
        if module is not None:
            await world.nursery.start(serve_nsm, module, await listen(Unix(path)))
        yield Enclave(world, image, world.parent(), device)


async def boot_with(world: World, faults: Faults) -> Booted:
    """A boot whose module has faults from the beginning."""
    module = world.module(world.image())
    module.faults = faults
    async with enclave_over_a_socket(world, module) as enclave:
        booted = await enclave.boot()
        assert (enclave.parent.journal("provisioning.challenged") == []) == (world.audit("hello") == [])
    return booted


FAULTS: dict[str, tuple[Faults, str]] = {
    "random refused": (Faults(refused={GetRandom: NsmErrorCode.INTERNAL_ERROR}), "entropy_missing"),
    "attest refused": (Faults(refused={Attest: NsmErrorCode.INTERNAL_ERROR}), "nsm_internal_error"),
    "extend refused": (Faults(refused={ExtendPcr: NsmErrorCode.READ_ONLY_INDEX}), "nsm_read_only_index"),
    "lock refused": (Faults(refused={LockPcr: NsmErrorCode.INVALID_OPERATION}), "nsm_invalid_operation"),
    "interrupted": (Faults(errno=errno.EINTR), "nsm_interrupted"),
    "timed out in the driver": (Faults(errno=errno.ETIMEDOUT), "nsm_timeout"),
    "broken": (Faults(errno=errno.EIO), "nsm_io"),
    "gone": (Faults(errno=errno.ENODEV), "nsm_unavailable"),
    "lost with every third request": (Faults(drop_every=3), "nsm_io"),
    "slower than its deadline": (Faults(delay=6.0), "nsm_stalled"),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_a_module_with_a_fault_ends_the_boot_with_its_reason_and_nothing_is_released(
    mock_clock: MockClock, world: World, what: str
) -> None:
    faults, reason = FAULTS[what]
    assert (await boot_with(world, faults)).reason == reason
    assert world.leases() == []


async def test_a_module_that_stalls_for_good_ends_the_boot_in_seconds(mock_clock: MockClock, world: World) -> None:
    began = mock_clock.current_time()
    assert (await boot_with(world, Faults(stall=trio.Event()))).reason == "nsm_stalled"
    assert mock_clock.current_time() - began < 15
    assert world.leases() == []


async def test_without_a_module_there_is_no_boot(mock_clock: MockClock, world: World) -> None:
    async with enclave_over_a_socket(world, None) as enclave:
        assert (await enclave.boot()).reason == "nsm_unavailable"
        assert enclave.parent.connections("control") == 0, "without entropy nothing is said to anybody"


async def test_a_slow_module_is_waited_for(mock_clock: MockClock, world: World) -> None:
    booted = await boot_with(world, Faults(delay=1.0))
    assert booted.reason is None
    assert len(world.leases()) == 1


async def test_lock_of_the_others_refused_releases_nothing_to_a_process_and_says_so_to_the_provisioner(
    mock_clock: MockClock, world: World
) -> None:
    assert (await boot_with(world, Faults(refused={LockPcrs: NsmErrorCode.INTERNAL_ERROR}))).reason == "nsm_internal_error"
    assert [lease["state"] for lease in world.leases()] == ["failed"]


@pytest.mark.parametrize(
    ("skew", "reason", "refused"),
    [
        (timedelta(hours=-1), "provisioner_refused", "doc_stale"),
        (timedelta(hours=1), "provisioner_refused", "doc_future"),
        (timedelta(seconds=-59), None, None),
        (timedelta(seconds=4), None, None),
        (timedelta(days=-3), "tls_certificate", None),
        (timedelta(days=400), "tls_certificate", None),
    ],
    ids=["an hour slow", "an hour fast", "a minute slow", "four seconds fast", "days slow", "a year fast"],
)
async def test_a_module_whose_clock_is_wrong_gets_no_secrets(
    mock_clock: MockClock, world: World, skew: timedelta, reason: str | None, refused: str | None
) -> None:
    assert (await boot_with(world, Faults(clock_skew=skew))).reason == reason
    assert world.refusals() == ([] if refused is None else [refused])
    assert len(world.leases()) == (1 if reason is None else 0)


@pytest.mark.parametrize("index", [CONFIG_PCR, KEY_PCR, LIVE_PCR], ids=["PCR 16", "PCR 17", "PCR 18"])
@pytest.mark.parametrize("is_locked", [False, True], ids=["extended", "extended and locked"])
async def test_a_register_that_somebody_used_before_us_releases_nothing(
    mock_clock: MockClock, world: World, index: int, is_locked: bool
) -> None:
    """Extended: the evidence shows it. Locked: the boot itself cannot go on. PCR 18 locked shows as a boot that was live before."""
    image = world.image()
    world.register(image)
    device = MemoryDevice(world.module(image))
    nsm = Nsm(device)
    await nsm.extend_pcr(index, b"somebody else's")
    if is_locked:
        await nsm.lock_pcr(index)
    booted = await Enclave(world, image, world.parent(), device).boot()
    expected: dict[tuple[int, bool], tuple[str | None, list[str]]] = {
        (CONFIG_PCR, False): ("provisioner_refused", ["config_mismatch"]),
        (CONFIG_PCR, True): ("nsm_read_only_index", []),
        (KEY_PCR, False): ("provisioner_refused", ["phase_not_setup"]),
        (KEY_PCR, True): ("nsm_read_only_index", []),
        (LIVE_PCR, False): (None, []),  # not locked, so in no evidence; it is locked before any process starts all the same
        (LIVE_PCR, True): ("provisioner_refused", ["phase_not_setup"]),
    }
    assert (booted.reason, world.refusals()) == expected[index, is_locked]
    assert len(world.leases()) == (1 if booted.reason is None else 0)


async def test_a_second_boot_on_the_registers_of_a_first_one_is_impossible(mock_clock: MockClock, world: World) -> None:
    """The supervisor is started again in the same machine: its registers are spent."""
    image = world.image()
    world.register(image)
    device = MemoryDevice(world.module(image))
    assert (await Enclave(world, image, world.parent(), device).boot()).reason is None
    assert (await Enclave(world, image, world.parent(), device).boot()).reason == "nsm_read_only_index"
    assert len(world.leases()) == 1


async def test_a_config_that_was_measured_for_other_parameters_is_seen_by_the_provisioner(
    mock_clock: MockClock, world: World
) -> None:
    image = world.image()
    world.register(image)
    device = MemoryDevice(world.module(image))
    await Nsm(device).extend_pcr(CONFIG_PCR, config_commitment(image.config.digest, {}))
    assert (await Enclave(world, image, world.parent(), device).boot()).reason == "provisioner_refused", (
        "extended twice is another value"
    )
    assert world.refusals() == ["config_mismatch"]


async def test_a_provisioner_that_trusts_aws_alone_releases_nothing_to_a_simulated_module(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    def now() -> datetime:
        return START + timedelta(seconds=mock_clock.current_time())

    async with open_world(tmp_path, now, roots=(aws_root(),)) as world:
        world.nursery.start_soon(skip_waiting, mock_clock)
        image = world.image()
        world.register(image)
        assert (await enclave_of(world, image).boot()).reason == "provisioner_refused"
        assert world.refusals() == ["doc_chain"]
        assert world.leases() == []


async def test_a_verifier_that_trusts_aws_alone_believes_no_simulated_document(mock_clock: MockClock, world: World) -> None:
    document = await Nsm(MemoryDevice(world.module(world.image()))).attest()
    assert appraise(document, now=world.now(), roots=[world.root.certificate], reference=ANY_MEASUREMENT).is_debug is False
    with pytest.raises(AppraisalFailed) as failed:
        appraise(document, now=world.now(), roots=[aws_root()], reference=ANY_MEASUREMENT)
    assert Reason.ROOT_UNKNOWN in {mismatch.code for mismatch in failed.value.mismatches}


async def test_a_debug_enclave_gets_no_secrets(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    module = SimulatedNsm(world.root, module_id=MODULE_ID, pcrs=image.registers, now=world.now, debug=True)
    assert (await Enclave(world, image, world.parent(), MemoryDevice(module)).boot()).reason == "provisioner_refused"
    assert world.refusals() == ["debug_enclave"]
