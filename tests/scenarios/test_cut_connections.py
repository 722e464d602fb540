"""The parent cuts, corrupts and delays what it carries. The enclave has its secrets all the same, or says why not within its bounds."""

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.identity.provisioning import RESENDS
from runtime.simulator.hostile_parent import Direction, Place, Treatment, dial_to
from runtime.simulator.stolen_key import Name, untouched
from tests.scenarios.boots import Booted, Enclave, enclave_of
from tests.scenarios.world import World

ATTEMPTS = 8  # as provisioner.attempts is by default
MOST_CONNECTIONS = ATTEMPTS * (1 + RESENDS) + RESENDS
OUT_OFFSETS = [0, 1, 100, 1600, 1700, 1900, 2200, 2600, 3500, 5000, 7000, 8000, 8300, 8390, 8430]
IN_OFFSETS = [0, 1, 3, 200, 1200, 1300, 1800, 2300, 2700, 2800, 2850, 3000, 3500, 4500, 5000, 5200, 5300, 5400, 5430]
"""From the first byte to near the last: a whole connection carries about 8 460 bytes out and 5 430 in."""


async def boot(world: World, treatments: dict[int, Treatment], *, channel: str = "exporter") -> tuple[Enclave, Booted]:
    """A boot of which some connections, by number, are treated badly."""
    image = world.image(channel=channel)
    world.register(image)
    enclave = enclave_of(world, image)
    enclave.parent.egress = lambda number: treatments.get(number, Treatment())
    return enclave, await enclave.boot()


def require_secrets(world: World, enclave: Enclave, booted: Booted) -> None:
    assert booted.reason is None
    assert booted.values() == {name: secret.value.reveal() for name, secret in world.secrets.items()}
    assert enclave.parent.connections("egress") <= MOST_CONNECTIONS
    world.require_nothing_released_twice()
    (lease,) = [lease for lease in world.leases() if lease["state"] == "live"] or world.leases()[-1:]
    assert booted.provisioned is not None
    assert lease["lease_id"] == booted.provisioned.released.header.lease_id


@pytest.mark.parametrize("channel", ["exporter", "none"])
@pytest.mark.parametrize(("direction", "octets"), [("out", at) for at in OUT_OFFSETS] + [("in", at) for at in IN_OFFSETS], ids=str)
async def test_a_connection_that_is_cut_at_any_byte_costs_time_and_nothing_else(
    mock_clock: MockClock, world: World, direction: Direction, octets: int, channel: str
) -> None:
    cut = Treatment(cut=Place(direction=direction, octets=octets))
    require_secrets(world, *await boot(world, {1: cut}, channel=channel))


@pytest.mark.parametrize("direction", ["out", "in"])
@pytest.mark.parametrize("records", range(1, 13))
async def test_a_connection_that_is_cut_after_any_record_costs_time_and_nothing_else(
    mock_clock: MockClock, world: World, direction: Direction, records: int
) -> None:
    cut = Treatment(cut=Place(direction=direction, records=records))
    enclave, booted = await boot(world, {1: cut})
    require_secrets(world, enclave, booted)


@pytest.mark.parametrize("direction", ["out", "in"])
@pytest.mark.parametrize("octets", [0, 2, 700, 1800, 2400, 2800, 4000, 5100])
async def test_a_byte_that_was_inverted_on_the_way_costs_time_and_nothing_else(
    mock_clock: MockClock, world: World, direction: Direction, octets: int
) -> None:
    flip = Treatment(flip=Place(direction=direction, octets=octets))
    require_secrets(world, *await boot(world, {1: flip}))


async def test_a_byte_that_was_inverted_in_the_servers_certificate_is_an_impostors(mock_clock: MockClock, world: World) -> None:
    """The handshake's hash would tell first what it is; whatever it is taken for, nothing of it is believed."""
    reasons = set()
    for octets in range(1250, 1350, 20):
        flip = Treatment(flip=Place(direction="in", octets=octets))
        _, booted = await boot(world, dict.fromkeys(range(1, ATTEMPTS + 1), flip))
        reasons.add(booted.reason)
    assert reasons <= {"tls_handshake", "tls_certificate"}
    assert world.leases() == []


@pytest.mark.parametrize("step", ["hello", "challenge", "evidence", "release", "confirm", "confirmed"])
async def test_a_connection_that_ends_around_any_message_costs_time_and_nothing_else(
    mock_clock: MockClock, world: World, step: Name
) -> None:
    """As a proxy in front of the provisioner may do it, which ends TLS properly on both sides."""
    cuts: list[Name] = []

    async def cut_once(name: Name, data: bytes) -> bytes:
        if name == step and not cuts:
            cuts.append(name)
            raise trio.BrokenResourceError("cut")
        return await untouched(name, data)

    image = world.image(channel="none")
    world.register(image)
    enclave = enclave_of(world, image)
    middle = world.man_in_the_middle()
    middle.alter = cut_once
    enclave.parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, middle.handle))
    require_secrets(world, enclave, await enclave.boot())
    assert cuts == [step]
    resent = len(middle.messages("evidence")) - 1
    assert resent == (1 if step in ("evidence", "release") else 0)
    assert len(enclave.parent.journal("provisioning.evidence_resent")) == resent
    assert len(world.leases()) == 1
    assert len(world.audit("repeated")) == (1 if step == "release" else 0)


async def test_evidence_whose_release_was_lost_earns_the_same_release_on_another_connection(
    mock_clock: MockClock, world: World
) -> None:
    """The channel is bound to TLS, and the provisioner's answer is cut off at its first byte."""
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    # Up to the challenge an undisturbed connection has carried so much; nothing behind it arrives.
    probe = enclave_of(world, image)
    assert (await probe.boot()).reason is None
    (whole,) = probe.parent.recorded("egress", "in")
    cut = Treatment(cut=Place(direction="in", octets=len(whole) - 2000))
    enclave.parent.egress = lambda number: cut if number == 1 else Treatment()
    booted = await enclave.boot()
    assert booted.reason is None
    assert len(enclave.parent.journal("provisioning.evidence_resent")) == 1
    assert len(world.audit("repeated")) == 1
    assert [lease["state"] for lease in world.leases()] == ["live", "live"]
    world.require_nothing_released_twice()


async def test_evidence_that_never_arrived_is_made_anew_with_a_new_ticket(mock_clock: MockClock, world: World) -> None:
    """What is bound to a connection that is gone is refused on every other: fresh evidence is not."""
    enclave, booted = await boot(world, {1: Treatment(cut=Place(direction="out", octets=5000))})
    require_secrets(world, enclave, booted)
    assert world.refusals() == ["transcript_mismatch"]
    assert len(world.audit("ticket")) == 2
    assert len(world.leases()) == 1


@pytest.mark.parametrize("direction", ["out", "in"])
@pytest.mark.parametrize("octets", [0, 1000, 3000, 5000])
async def test_a_parent_that_cuts_every_connection_ends_the_boot_within_its_bounds(
    mock_clock: MockClock, world: World, direction: Direction, octets: int
) -> None:
    image = world.image()
    world.register(image, lease_quota=100)
    enclave = enclave_of(world, image)
    enclave.parent.egress = lambda _: Treatment(cut=Place(direction=direction, octets=octets))
    began = mock_clock.current_time()
    booted = await enclave.boot()
    assert booted.reason in {"connection_lost", "tls_closed", "provisioner_unreachable", "provisioner_refused", "tls_handshake"}
    assert len(enclave.parent.journal("provisioning.attempt_failed")) == ATTEMPTS
    assert enclave.parent.connections("egress") <= MOST_CONNECTIONS
    assert mock_clock.current_time() - began < 600
    world.require_nothing_released_twice()


async def test_a_slow_parent_is_waited_for(mock_clock: MockClock, world: World) -> None:
    enclave, booted = await boot(world, {1: Treatment(delay=2.0)})
    require_secrets(world, enclave, booted)
    assert enclave.parent.connections("egress") == 1


async def test_a_parent_that_is_slower_than_every_step_allows_ends_the_boot(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    enclave.parent.egress = lambda _: Treatment(delay=20.0)
    began = mock_clock.current_time()
    booted = await enclave.boot()
    assert booted.reason == "tls_closed", "the provisioner is the first to lose its patience"
    assert mock_clock.current_time() - began < 600
    assert world.leases() == []
