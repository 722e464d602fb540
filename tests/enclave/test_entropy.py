"""The seed of the kernel's generator: where it comes from, what is none, and that nothing is handed out without it."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
import trio

from runtime.enclave.identity import entropy
from runtime.enclave.identity.entropy import NITRO_GENERATOR, current_generator, open_module, seed_entropy
from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.nsm import (
    DescribeNsm,
    Failure,
    GetRandom,
    NsmDescription,
    NsmErrorCode,
    Random,
    Request,
    Response,
    decode_request,
    encode_response,
)

GOOD = bytes(range(256))
DESCRIPTION = NsmDescription(version=(1, 0, 0), module_id="i-1-enc1", max_pcrs=32, locked_pcrs=frozenset(), digest="SHA384")


class Module:
    """A module that describes itself and gives `answers` to GetRandom, in turn."""

    is_occupied = False

    def __init__(self, *answers: bytes | NsmErrorCode) -> None:
        self.answers: Iterator[bytes | NsmErrorCode] = cycle(answers)
        self.asked: list[Request] = []

    async def exchange(self, request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.asked.append(decode_request(request))
        return encode_response(self._answer(self.asked[-1]))

    def _answer(self, request: Request) -> Response:
        if isinstance(request, DescribeNsm):
            return DESCRIPTION
        answer = next(self.answers)
        return Random(random=answer) if isinstance(answer, bytes) else Failure(code=answer)


@pytest.fixture(name="seeds")
def fixture_seeds(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What would have been added to this machine's pool."""
    seeds: list[bytes] = []

    def add(_descriptor: int, seed: bytes) -> int:
        seeds.append(seed)
        return len(seed)

    monkeypatch.setattr(entropy, "_add", add)
    return seeds


@pytest.mark.parametrize(
    "answers",
    [
        [NsmErrorCode.INTERNAL_ERROR],
        [b"\x00" * 256],
        [b"\xa5" * 256],
        [b"\x01"],
        [b"\x01\x02"],
        [bytes(range(31)) * 8],
        [bytes(range(16))],
        [GOOD[:32], NsmErrorCode.INVALID_OPERATION],
    ],
    ids=["refused", "zeros", "one byte", "a byte a time", "two bytes", "31 bytes over", "16 bytes over", "refused later"],
)
async def test_a_module_that_gives_no_entropy_is_refused_with_one_reason_and_the_pool_gets_nothing(
    seeds: list[bytes], answers: list[bytes | NsmErrorCode]
) -> None:
    notes: list[str] = []
    with pytest.raises(NsmError) as failed:
        await open_module(Module(*answers), lambda event, _fields, _level: notes.append(event))
    assert failed.value.reason == "entropy_missing"
    assert notes == ["nsm.found"]
    assert seeds == []


async def test_a_module_that_gives_little_at_a_time_is_asked_until_it_is_enough(seeds: list[bytes]) -> None:
    module = Module(*(bytes([value]) for value in range(64)))
    assert await seed_entropy(Nsm(module)) == 64
    assert seeds == [bytes(range(64))]
    assert module.asked == [GetRandom()] * 64


async def test_the_module_is_handed_out_when_the_seed_is_in_the_pool(seeds: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[tuple[str, JournalFields, Level]] = []
    for generator, level in ((NITRO_GENERATOR, "info"), ("virtio_rng.0", "warning"), ("none", "warning")):
        monkeypatch.setattr(entropy, "current_generator", lambda generator=generator: generator)
        notes.clear()
        await open_module(Module(GOOD), lambda event, fields, level: notes.append((event, fields, level)))
        assert notes == [
            ("nsm.found", {"module": "i-1-enc1"}, "info"),
            ("entropy.seeded", {"credited": 256, "generator": generator}, level),
        ]
    assert seeds == [GOOD] * 3


def test_the_generator_is_named_as_the_kernel_names_it_and_none_where_there_is_no_word_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rng_current"
    assert current_generator(path) == "none"
    for written, read in ((b"nsm-hwrng\n", NITRO_GENERATOR), (b"", "none"), (b"\n", "none"), (b"x" * 5000, "x" * 100)):
        path.write_bytes(written)
        assert current_generator(path) == read
