"""The parent lies: about the instance, the host parameters, the ticket; or it talks nonsense, hangs up, or says nothing at all."""

import secrets
from collections.abc import Awaitable, Callable, Mapping

import pytest
import trio
from trio.testing import MockClock

from runtime.simulator.hostile_parent import Act, HostileParent, Stage, Treatment, Word
from tests.scenarios.boots import Booted, Enclave, MemoryDevice, enclave_of
from tests.scenarios.world import INSTANCE, OTHER_INSTANCE, World

ATTEMPTS = 8  # as provisioner.attempts is by default


def true_secrets(world: World) -> dict[str, bytes]:
    return {name: secret.value.reveal() for name, secret in world.secrets.items()}


async def boot(world: World, change: Callable[[HostileParent], None], **record: object) -> tuple[Enclave, Booted]:
    """A boot behind a parent that was told to lie."""
    image = world.image()
    world.register(image, **record)
    enclave = enclave_of(world, image)
    change(enclave.parent)
    return enclave, await enclave.boot()


def saying(word: Word) -> Callable[[HostileParent], None]:
    def change(parent: HostileParent) -> None:
        parent.control = lambda _: word

    return change


def with_tickets(tickets: Callable[[], Awaitable[bytes | None]]) -> Callable[[HostileParent], None]:
    def change(parent: HostileParent) -> None:
        parent.tickets = tickets

    return change


async def test_a_ticket_that_was_bought_for_another_instance_is_refused(mock_clock: MockClock, world: World) -> None:
    _, booted = await boot(world, with_tickets(world.tickets("payments", OTHER_INSTANCE)))
    assert booted.reason == "provisioner_refused"
    assert world.refusals() == ["host_instance"]
    assert world.leases() == []


async def test_an_enclave_on_another_instance_cannot_use_this_instances_ticket(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = Enclave(world, image, world.parent(), MemoryDevice(world.module(image, OTHER_INSTANCE)))
    assert (await enclave.boot()).reason == "provisioner_refused"
    assert world.refusals() == ["host_instance"]


async def test_another_instance_id_in_the_welcome_decides_nothing(mock_clock: MockClock, world: World) -> None:
    _, booted = await boot(world, saying(Word(instance_id="i-00000000000000bad")))
    assert booted.values() == true_secrets(world)


@pytest.mark.parametrize(
    ("told", "recorded"),
    [({"REGION": "elsewhere"}, {"REGION": "here"}), ({"DEBUG": "1"}, {}), ({}, {"REGION": "here"})],
    ids=["another value", "one more", "one less"],
)
async def test_other_host_parameters_than_the_record_predicts_are_refused(
    mock_clock: MockClock, world: World, told: Mapping[str, str], recorded: Mapping[str, str]
) -> None:
    enclave, booted = await boot(world, saying(Word(host_parameters=told)), host_parameters=dict(recorded))
    assert booted.reason == "provisioner_refused"
    assert world.refusals() == ["config_mismatch"]
    assert world.leases() == []
    assert (await enclave.parent.until_state("failed")).reason == "provisioner_refused"


async def test_the_host_parameters_of_the_record_are_accepted(mock_clock: MockClock, world: World) -> None:
    parameters = {"REGION": "here", "STAGE": "production"}
    _, booted = await boot(world, saying(Word(host_parameters=parameters)), host_parameters=parameters)
    assert booted.values() == true_secrets(world)


async def test_what_a_later_welcome_says_does_not_change_what_was_measured(mock_clock: MockClock, world: World) -> None:
    """The link breaks after the first welcome, and the second one tells of other host parameters."""

    def change(parent: HostileParent) -> None:
        first = Word(host_parameters={"REGION": "here"}, at={"welcomed": "close"})
        parent.control = lambda number: first if number == 1 else Word(host_parameters={"REGION": "elsewhere"})

    enclave, booted = await boot(world, change, host_parameters={"REGION": "here"})
    assert enclave.parent.connections("control") > 1
    assert booted.values() == true_secrets(world)


async def test_another_enclaves_ticket_is_judged_by_that_enclaves_record(mock_clock: MockClock, world: World) -> None:
    world.register(world.image("ledger"))
    _, booted = await boot(world, with_tickets(world.tickets("ledger", INSTANCE)))
    assert booted.reason == "provisioner_refused"
    assert world.refusals() == ["measurement_unknown"]
    assert world.leases() == []


async def test_another_enclaves_release_is_not_taken_though_its_record_accepts_the_image(
    mock_clock: MockClock, world: World
) -> None:
    """An operator has registered one image under two names: the secrets of the other name are not this enclave's."""
    image = world.image()
    world.register(image, enclave_id="twin")
    _, booted = await boot(world, with_tickets(world.tickets("twin", INSTANCE)))
    assert booted.reason == "wrong_enclave_id"
    assert [lease["state"] for lease in world.leases()] == ["issued"], "and counts until its end, though nobody confirms it"


async def test_one_ticket_for_two_enclaves_serves_one_of_them_and_raises_an_alarm(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    ticket = await world.tickets("payments", INSTANCE)()

    async def the_same() -> bytes | None:
        await trio.lowlevel.checkpoint()
        return ticket

    enclaves = [enclave_of(world, image) for _ in range(2)]
    outcomes: list[Booted] = []

    async def run(enclave: Enclave) -> None:
        outcomes.append(await enclave.boot())

    async with trio.open_nursery() as nursery:
        for enclave in enclaves:
            enclave.parent.tickets = the_same
            nursery.start_soon(run, enclave)
    served = [outcome for outcome in outcomes if outcome.reason is None]
    assert [outcome.values() for outcome in served] == [true_secrets(world)]
    assert {outcome.reason for outcome in outcomes} <= {None, "provisioner_refused", "provisioner_challenge_gone"}
    assert "ticket_reused" in world.refusals()
    assert any(entry.alarm for entry in world.audit("refused") if entry.reason == "ticket_reused")
    world.require_nothing_released_twice()
    assert len(world.leases()) == 1


async def test_a_ticket_that_nobody_issued_buys_nothing(mock_clock: MockClock, world: World) -> None:
    async def invented() -> bytes:
        await trio.lowlevel.checkpoint()
        return secrets.token_bytes(32)

    _, booted = await boot(world, with_tickets(invented))
    assert booted.reason == "provisioner_challenge_gone"
    assert world.refusals() == ["ticket_unknown"] * ATTEMPTS


async def test_an_expired_ticket_buys_nothing_and_a_fresh_one_does(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    fetch = world.tickets("payments", INSTANCE)
    old: list[bytes | None] = [await fetch()]
    await trio.sleep(601)

    async def old_first() -> bytes | None:
        return old.pop() if old else await fetch()

    _, booted = await boot(world, with_tickets(old_first))
    assert booted.values() == true_secrets(world)
    assert world.refusals() == ["ticket_expired"]


@pytest.mark.parametrize("how", ["says that it has none", "never answers"])
async def test_a_parent_that_gives_no_ticket_ends_the_boot_within_its_bounds(mock_clock: MockClock, world: World, how: str) -> None:
    async def none() -> bytes | None:
        await trio.lowlevel.checkpoint()
        return None

    def change(parent: HostileParent) -> None:
        parent.tickets = none
        parent.control = lambda _: Word(at={"ticket": "stall"} if how == "never answers" else {})

    began = mock_clock.current_time()
    enclave, booted = await boot(world, change)
    assert booted.reason == "ticket_unavailable"
    assert enclave.parent.connections("egress") == 0, "without a ticket there is nothing to ask"
    assert mock_clock.current_time() - began < 300


@pytest.mark.parametrize("act", ["garbage", "close", "stall"])
@pytest.mark.parametrize("stage", ["connected", "greeted"])
async def test_a_parent_that_never_welcomes_the_enclave_is_given_up_after_a_minute(
    mock_clock: MockClock, world: World, stage: Stage, act: Act
) -> None:
    began = mock_clock.current_time()
    enclave, booted = await boot(world, saying(Word(at={stage: act})))
    assert booted.reason == "parent_unreachable"
    assert 59 < mock_clock.current_time() - began < 70
    assert enclave.parent.connections("control") > 1
    assert world.audit("hello") == []


@pytest.mark.parametrize("act", ["garbage", "close", "stall"])
@pytest.mark.parametrize("stage", ["connected", "greeted", "welcomed", "ticket"])
async def test_a_parent_that_comes_to_its_senses_is_forgiven(mock_clock: MockClock, world: World, stage: Stage, act: Act) -> None:
    async def none_in_the_welcome() -> bytes | None:
        given.append(None)
        return None if len(given) == 1 else await world.tickets("payments", INSTANCE)()

    given: list[None] = []

    def change(parent: HostileParent) -> None:
        parent.control = lambda number: Word(at={stage: act} if number == 1 else {})
        if stage == "ticket":
            parent.tickets = none_in_the_welcome

    _, booted = await boot(world, change)
    assert booted.values() == true_secrets(world)
    world.require_nothing_released_twice()


@pytest.mark.parametrize("act", ["garbage", "close", "stall"])
async def test_a_parent_that_goes_silent_after_the_welcome_stops_no_boot_that_has_its_ticket(
    mock_clock: MockClock, world: World, act: Act
) -> None:
    _, booted = await boot(world, saying(Word(at={"welcomed": act})))
    assert booted.values() == true_secrets(world)


ANSWERS: dict[str, tuple[Treatment, str]] = {
    "garbage": (Treatment(answer="garbage"), "too_large"),
    "refused": (Treatment(answer="refuse"), "provisioner_unreachable"),
    "nothing": (Treatment(answer="stall"), "provisioner_unreachable"),
    "an end": (Treatment(answer="close"), "truncated"),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_an_egress_that_answers_anything_but_connected_ends_the_boot_within_its_bounds(
    mock_clock: MockClock, world: World, what: str
) -> None:
    treatment, reason = ANSWERS[what]

    def change(parent: HostileParent) -> None:
        parent.egress = lambda _: treatment

    began = mock_clock.current_time()
    enclave, booted = await boot(world, change)
    assert booted.reason == reason
    assert enclave.parent.connections("egress") == ATTEMPTS
    assert mock_clock.current_time() - began < 300
    assert world.audit("hello") == []


@pytest.mark.parametrize("what", ANSWERS)
async def test_an_egress_that_fails_at_first_costs_time_and_nothing_else(mock_clock: MockClock, world: World, what: str) -> None:
    treatment, _ = ANSWERS[what]

    def change(parent: HostileParent) -> None:
        parent.egress = lambda number: treatment if number < ATTEMPTS else Treatment()

    _, booted = await boot(world, change)
    assert booted.values() == true_secrets(world)
