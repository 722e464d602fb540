"""Evidence is offered again, releases go to the wrong enclave, recorded connections are played back."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from runtime.net.http import HttpClient
from runtime.protocol import cbor
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.errors import Refused
from runtime.protocol.messages import Challenge, Evidence, Hello, ProvError
from runtime.protocol.release import UnverifiedRelease
from runtime.protocol.sealing import Suite, generate_key, open_sealed
from runtime.simulator.hostile_parent import Treatment, dial_to
from runtime.simulator.stolen_key import ManInTheMiddle, Name, post, untouched
from tests.scenarios.boots import Booted, Enclave, enclave_of
from tests.scenarios.middle import altering, flip, play
from tests.scenarios.world import SERVER_NAME, World


async def replayed(middle: ManInTheMiddle, step: str, body: bytes) -> tuple[int, bytes]:
    """(status, body) of the true provisioner's answer over a connection of the attacker's own."""
    async with await middle.ask() as tls:
        answer = await post(HttpClient(tls, host=SERVER_NAME), step, body)
    return answer.status, answer.body


def code(answer: tuple[int, bytes]) -> str:
    return ProvError.decode(answer[1]).code


def true_secrets(world: World) -> dict[str, bytes]:
    return {name: secret.value.reveal() for name, secret in world.secrets.items()}


async def test_evidence_that_earned_a_release_earns_the_same_bytes_again_and_no_second_lease(
    mock_clock: MockClock, world: World
) -> None:
    played = await play(world, untouched)
    (evidence,), (release,) = played.middle.messages("evidence"), played.middle.messages("release")
    for _ in range(3):
        assert await replayed(played.middle, "evidence", evidence) == (200, release)
    assert len(world.leases()) == 1
    assert len(world.audit("repeated")) == 3
    world.require_nothing_released_twice()
    # What the attacker holds now is of no use to him, whichever key he tries.
    sealed = UnverifiedRelease.decode(release).sealed
    with pytest.raises(Refused) as refused:
        open_sealed(generate_key(Suite.X_WING), sealed, info=b"")
    assert refused.value.reason == "seal_broken"


async def test_a_minute_later_the_same_evidence_earns_nothing(mock_clock: MockClock, world: World) -> None:
    played = await play(world, untouched)
    (evidence,) = played.middle.messages("evidence")
    await trio.sleep(61)
    assert code(await replayed(played.middle, "evidence", evidence)) == "challenge_gone"
    assert world.refusals() == ["challenge_used"]
    assert len(world.leases()) == 1


async def test_evidence_that_was_altered_once_is_lost_for_its_challenge(mock_clock: MockClock, world: World) -> None:
    played = await play(world, altering("evidence", flip(1, -1)))
    assert played.booted.reason == "provisioner_refused"
    (evidence,) = played.middle.messages("evidence")
    assert code(await replayed(played.middle, "evidence", evidence)) == "challenge_gone"
    assert world.refusals()[-1] == "challenge_used"
    assert world.leases() == []


async def test_an_attacker_who_is_first_with_held_back_evidence_only_fetches_the_enclave_its_release(
    mock_clock: MockClock, world: World
) -> None:
    """He cuts the enclave off, offers its evidence himself, and lets the enclave's second sending through."""
    held: list[bytes] = []

    async def hold(name: Name, data: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        if name == "evidence" and not held:
            held.append(data)
            raise trio.BrokenResourceError("held back")
        return data

    image = world.image(channel="none")
    world.register(image)
    enclave = enclave_of(world, image)
    middle = world.man_in_the_middle()
    middle.alter = hold
    releases: list[tuple[int, bytes]] = []

    async def serve(stream: trio.SocketStream) -> None:
        if held and not releases:
            releases.append(await replayed(middle, "evidence", held[0]))
        await middle.handle(stream)

    enclave.parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, serve))
    booted = await enclave.boot()
    assert booted.values() == true_secrets(world)
    assert releases == [(200, middle.messages("release")[0])]
    assert len(world.leases()) == len(world.audit("repeated")) == 1
    world.require_nothing_released_twice()


async def test_an_old_document_does_not_answer_a_new_challenge(mock_clock: MockClock, world: World) -> None:
    """With a ticket and a handshake of his own the attacker has a challenge, and the wrong document for it."""
    played = await play(world, untouched)
    hello = Hello.decode(played.middle.messages("hello")[0])
    old = Evidence.decode(played.middle.messages("evidence")[0])
    ticket = await world.parent().tickets()
    assert ticket is not None
    fields = cbor.decode(hello.encode())
    assert isinstance(fields, dict)
    _, body = await replayed(played.middle, "hello", cbor.encode(fields | {2: ticket}))
    fresh = Evidence(
        challenge_id=Challenge.decode(body).challenge_id,
        document=old.document,
        hpke_public_key=old.hpke_public_key,
        certificate_request=old.certificate_request,
    )
    assert code(await replayed(played.middle, "evidence", fresh.encode())) == "refused"
    assert world.refusals() == ["nonce_mismatch"]
    assert len(world.leases()) == 1


async def test_a_spent_ticket_buys_no_second_challenge(mock_clock: MockClock, world: World) -> None:
    played = await play(world, untouched)
    assert code(await replayed(played.middle, "hello", played.middle.messages("hello")[0])) == "challenge_gone"
    assert world.refusals() == ["ticket_reused"]


@pytest.mark.parametrize("step", ["hello", "confirm"])
async def test_what_is_offered_after_the_boot_changes_no_lease(mock_clock: MockClock, world: World, step: Name) -> None:
    played = await play(world, untouched)
    before = [tuple(lease) for lease in world.leases()]
    await replayed(played.middle, step, played.middle.messages(step)[0])
    assert [tuple(lease) for lease in world.leases()] == before
    assert [lease["state"] for lease in world.leases()] == ["live"]


async def test_a_recorded_connection_that_is_played_back_reaches_no_request(mock_clock: MockClock, world: World) -> None:
    """All that a parent without the key can do: the very bytes again."""
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    assert (await enclave.boot()).values() == true_secrets(world)
    audited = len(world.audit())
    (recorded,) = enclave.parent.recorded("egress", "out")
    async with await world.dial() as stream:
        await stream.send_all(recorded)
        with trio.move_on_after(30):
            while await stream.receive_some():
                pass
    assert len(world.audit()) == audited
    assert len(world.leases()) == 1


async def _both(first: Enclave, second: Enclave) -> tuple[Booted, Booted]:
    outcomes: dict[Enclave, Booted] = {}

    async def boot(enclave: Enclave) -> None:
        outcomes[enclave] = await enclave.boot()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(boot, first)
        nursery.start_soon(boot, second)
    return outcomes[first], outcomes[second]


def _treat(treatment: Treatment, _: int) -> Treatment:
    return treatment


class Exchange:
    """Two messages that are given to each other's receivers once both are there."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._full = trio.Event()

    async def swap(self, name: Name, data: bytes) -> bytes:
        if name != "release":
            return await untouched(name, data)
        place = len(self._held)
        self._held.append(data)
        if place == 1:
            self._full.set()
        await self._full.wait()
        return self._held[1 - place]


async def test_releases_of_two_boots_of_one_image_that_are_swapped_open_for_neither(mock_clock: MockClock, world: World) -> None:
    image = world.image(channel="none")
    world.register(image)
    exchange = Exchange()
    enclaves = [enclave_of(world, image) for _ in range(2)]
    for enclave in enclaves:
        middle = world.man_in_the_middle()
        middle.alter = exchange.swap
        enclave.parent.egress = partial(_treat, Treatment(dial=dial_to(world.nursery, middle.handle)))
    outcomes = await _both(enclaves[0], enclaves[1])
    assert [outcome.reason for outcome in outcomes] == ["bad_signature", "bad_signature"]
    assert [lease["state"] for lease in world.leases()] == ["issued", "issued"]
    world.require_nothing_released_twice()


class Crossing:
    """Two connections to the provisioner whose answers go to each other's enclave, from so many bytes on."""

    def __init__(self, world: World, *, after: int) -> None:
        self._world = world
        self._after = after
        self._enclaves: list[trio.SocketStream] = []
        self._met = trio.Event()
        self._turn = trio.Lock()

    async def handle(self, enclave: trio.SocketStream) -> None:
        place = len(self._enclaves)
        self._enclaves.append(enclave)
        if place == 1:
            self._met.set()
        await self._met.wait()
        async with await self._world.dial() as provisioner, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, enclave, provisioner)
            count = 0
            while data := await provisioner.receive_some():
                own, foreign = data[: max(0, self._after - count)], data[max(0, self._after - count) :]
                count += len(data)
                async with self._turn:
                    for piece, to in ((own, enclave), (foreign, self._enclaves[1 - place])):
                        await to.send_all(piece)
            nursery.cancel_scope.cancel()


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some():
        await sink.send_all(data)


@pytest.mark.parametrize("after", [0, 1, 500, 2000, 3000], ids=lambda after: f"after {after} bytes")
async def test_two_enclaves_whose_connections_were_crossed_have_each_its_own_secrets_in_the_end(
    mock_clock: MockClock, world: World, after: int
) -> None:
    images = [world.image("payments"), world.image("ledger")]
    others = {name: Secret(delivery="env", value=SecretValue(b"the ledger's " + name.encode())) for name in world.secrets}
    for image, secrets in zip(images, (world.secrets, others), strict=True):
        world.register(image, secrets=secrets)
    crossing = Crossing(world, after=after)
    enclaves = [enclave_of(world, image) for image in images]
    for enclave in enclaves:
        enclave.parent.egress = lambda number: Treatment(dial=dial_to(world.nursery, crossing.handle) if number == 1 else None)
    for outcome, secrets in zip(await _both(enclaves[0], enclaves[1]), (world.secrets, others), strict=True):
        assert outcome.values() == {name: secret.value.reveal() for name, secret in secrets.items()}
    world.require_nothing_released_twice()
