"""Every decoder, for a few seconds each: any bytes give a value or the one documented error.

A failure prints the bytes. Put them into the decoder's folder of seeds, so that they are tried first from then on. More time:
`pytest tests/test_fuzz.py --fuzz-seconds 600`.
"""

import random
import time

import pytest

from tests.fuzz.decoders import CORPUS, DECODERS, Decoder
from tests.fuzz.mutate import mutated


def seeds_of(decoder: Decoder) -> list[bytes]:
    return [path.read_bytes() for path in sorted(decoder.seeds.iterdir()) if path.suffix in ("", ".cbor", ".toml", ".eif")]


def attempt(decoder: Decoder, data: bytes) -> bool:
    """Whether `data` was accepted; any error but the documented one fails the test."""
    try:
        decoder.decode(data)
    except decoder.error:
        return False
    except BaseException as error:
        error.add_note(f"decoder {decoder.name}, {len(data)} bytes: {data.hex()}")
        raise
    return True


def fuzz(decoder: Decoder, seeds: list[bytes], seconds: float) -> None:
    generator = random.Random(random.getrandbits(64))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(50):
            attempt(decoder, mutated(generator, seeds))


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_any_bytes_give_a_value_or_the_one_documented_error(decoder: Decoder, request: pytest.FixtureRequest) -> None:
    seeds = seeds_of(decoder)
    accepted = [seed for seed in seeds if attempt(decoder, seed)]
    assert accepted, "no seed is accepted: mutations of them would prove little"
    assert not attempt(decoder, b"\xff" * 64)
    fuzz(decoder, seeds, request.config.getoption("--fuzz-seconds"))


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_a_seed_cut_at_any_length_gives_a_value_or_the_one_documented_error(decoder: Decoder) -> None:
    for seed in seeds_of(decoder)[:8]:
        step = 1 + len(seed) // 600
        assert [attempt(decoder, seed[:length]) for length in range(0, len(seed), step)]


def test_a_fault_in_a_decoder_is_found_and_its_bytes_are_named() -> None:
    def faulty(data: bytes) -> int:
        return data[0] // (data[1] - 7)

    decoder = Decoder(name="faulty", decode=faulty, seeds=CORPUS / "cbor")
    with pytest.raises((IndexError, ZeroDivisionError)) as found:
        fuzz(decoder, [b"\0\0"], 60)
    assert found.value.__notes__[0].startswith("decoder faulty, ")


def test_mutations_reach_every_single_bit() -> None:
    generator = random.Random(1)
    made = {mutated(generator, [b"\0\0\0\0"]) for _ in range(20_000)}
    assert made >= {(1 << bit).to_bytes(4, "big") for bit in range(32)}
    assert b"" in made
