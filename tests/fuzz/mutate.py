"""Mutations of byte strings: what breaks decoders, drawn from a seeded generator."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

SIZE_MAX = 64 * 1024
INTERESTING = (
    0,
    1,
    2,
    7,
    23,
    24,
    31,
    32,
    48,
    127,
    128,
    255,
    256,
    1 << 15,
    (1 << 16) - 1,
    1 << 16,
    (1 << 31) - 1,
    (1 << 32) - 1,
    (1 << 63) - 1,
    (1 << 64) - 1,
)

Mutation: TypeAlias = Callable[[Random, bytearray, Sequence[bytes]], None]


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` after one to four mutations, or now and then random bytes."""
    if random.random() < 0.02:
        return random.randbytes(random.randrange(64))
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, 4)):
        random.choice(MUTATIONS)(random, data, seeds)
    return bytes(data[:SIZE_MAX])


def _flip_bit(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set_byte(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _cut_end(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[random.randint(0, len(data)) :]


def _remove(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = random.randint(0, len(data))
    del data[start : start + random.randint(1, 16)]


def _insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.randbytes(random.randint(1, 8))


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = random.randint(0, len(data))
    piece = data[start : start + random.randint(1, 32)]
    data[start:start] = piece * random.randint(1, 8)


def _splice(random: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = random.choice(seeds)
    start = random.randint(0, len(other))
    at = random.randint(0, len(data))
    data[at : at + random.randint(0, 32)] = other[start : start + random.randint(1, 64)]


def _write_integer(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    size = random.choice((1, 2, 4, 8))
    at = random.randint(0, len(data))
    value = random.choice(INTERESTING) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, random.choice(("big", "little")))


def _claim_length(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A CBOR head of any major type with a large or odd argument."""
    at = random.randint(0, len(data))
    info, size = random.choice(((24, 1), (25, 2), (26, 4), (27, 8), (31, 0), (28, 0)))
    head = bytes((random.randrange(8) << 5 | info,)) + (random.choice(INTERESTING) & ((1 << 8 * size) - 1)).to_bytes(size, "big")
    data[at : at + random.randint(0, len(head))] = head


def _nest(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = random.randint(0, len(data))
    data[at:at] = random.choice((b"\x81", b"\xa1\x00", b"\x9f", b"\xbf\x00", b"\xc6", b"[", b"{")) * random.choice(
        (1, 7, 8, 9, 2000)
    )


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit, _set_byte, _cut_end, _remove, _insert, _repeat, _splice, _write_integer, _claim_length, _nest,
)  # fmt: skip
