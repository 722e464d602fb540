"""Scenarios with a man in the middle who holds the provisioner's TLS key: how one is played, and how messages are altered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import trio

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.release import RELEASE_MAX
from runtime.simulator.hostile_parent import Treatment, dial_to
from runtime.simulator.stolen_key import Alter, ManInTheMiddle, Name
from tests.scenarios.boots import Booted, Enclave, enclave_of
from tests.scenarios.world import World

Map = dict[int, object]
Edit = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Played:
    """A boot behind a man in the middle."""

    enclave: Enclave
    middle: ManInTheMiddle
    booted: Booted


async def play(world: World, alter: Alter, *, measured: str = "none", is_revoked: bool = False, **record: object) -> Played:
    """One boot of a registered image; every connection of its goes through the man in the middle.

    `measured` is the channel in the enclave's config. `is_revoked`: the record is revoked whenever a ticket has been bought.
    """
    image = world.image(channel=measured)
    world.register(image, **record)
    enclave = enclave_of(world, image)
    middle = world.man_in_the_middle()
    middle.alter = alter
    enclave.parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, middle.handle))
    buy = enclave.parent.tickets

    async def buy_and_be_revoked() -> bytes | None:
        world.register(image, **record)
        ticket = await buy()
        world.register(image, **record, status="revoked")
        return ticket

    if is_revoked:
        enclave.parent.tickets = buy_and_be_revoked
    return Played(enclave=enclave, middle=middle, booted=await enclave.boot())


def altering(name: Name, edit: Edit) -> Alter:
    """Alters every message of one name."""

    async def alter(found: Name, data: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return edit(data) if found == name else data

    return alter


def put(key: int, value: object) -> Edit:
    """Sets a field of a message that is a map."""
    return lambda data: cbor.encode(_map(data) | {key: value})


def drop(key: int) -> Edit:
    """Leaves a field out."""
    return lambda data: cbor.encode({name: value for name, value in _map(data).items() if name != key})


def flip(key: int, place: int = 0) -> Edit:
    """Inverts a byte of a field that is a byte string."""
    return lambda data: cbor.encode(_map(data) | {key: flipped(cast("bytes", _map(data)[key]), place)})


def flipped(value: bytes, place: int = 0) -> bytes:
    """`value` with the bits of one byte inverted."""
    changed = bytearray(value)
    changed[place] ^= 0xFF
    return bytes(changed)


def release_part(place: int, change: Callable[[bytes], object]) -> Edit:
    """Alters an element of a release's COSE_Sign1: 0 protected, 1 unprotected, 2 payload, 3 signature."""

    def edit(data: bytes) -> bytes:
        parts = cast("list[object]", cbor.decode(data, max_size=RELEASE_MAX))
        return cbor.encode([change(cast("bytes", part)) if index == place else part for index, part in enumerate(parts)])

    return edit


def payload(change: Callable[[Map, bytes], tuple[Map, bytes]]) -> Edit:
    """Alters the header and the sealed bundle of a release, and leaves its signature as it is."""

    def edit(data: bytes) -> object:
        content = cast("dict[int, Value]", cbor.decode(data, max_size=RELEASE_MAX))
        header, sealed = change(cast("Map", content[0]), cast("bytes", content[1]))
        return cbor.encode({0: header, 1: sealed})

    return release_part(2, edit)


def header(key: int, value: object) -> Edit:
    """Sets a field of a release's header."""
    return payload(lambda fields, sealed: (fields | {key: value}, sealed))


def _map(data: bytes) -> Map:
    return cast("Map", cbor.decode(data))
