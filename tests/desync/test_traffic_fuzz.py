"""Requests and answers that nobody wrote down, for as long as `--fuzz-seconds` says: the same rules hold for any bytes.

What a request or an answer is, is decided by an independent reading (reading.py). A failure prints the bytes: put them into the corpus
as one line, so that they are tried first from then on.
"""

import random
import time
from functools import partial
from pathlib import Path

import pytest

from tests.desync import mutations
from tests.desync.answer_judge import lawful_answer
from tests.desync.answers.cases import GET, HEAD, OLD
from tests.desync.corpus import GROUPS
from tests.desync.delivery import DELIVERIES, in_pieces
from tests.desync.judge import FOLLOWING, lawful
from tests.desync.rig import Script, Seen, running

_SEED_MAX = 2000
SEEDS = [case.raw for cases in GROUPS.values() for case in cases if 0 < len(case.raw) <= _SEED_MAX]


def drawn(generator: random.Random) -> bytes:
    """By the grammar, or a case of the corpus with a few bytes changed, or two of them."""
    if generator.random() < 0.5:
        return mutations.requests(generator)
    seeds = generator.choices(SEEDS, k=generator.choice((1, 1, 2)))
    return mutations.bent(generator, b"".join(seeds), generator.randint(1, 2))


def is_lawful(sent: bytes, seen: Seen) -> bool:
    return not lawful(sent, seen)


def is_lawful_answer(sent: bytes, script: Script, seen: Seen) -> bool:
    return not lawful_answer(sent, script, seen)


async def test_any_requests_arrive_as_another_reads_them_or_are_refused(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    generator = random.Random(random.getrandbits(64))
    end = time.perf_counter() + request.config.getoption("--fuzz-seconds")
    runs = accepted = refused = 0
    async with running(tmp_path) as rig:
        while time.perf_counter() < end or not (accepted and refused):
            data = drawn(generator) + FOLLOWING
            cut = generator.choice(list(DELIVERIES.values()))
            pieces = cut(data, generator)
            seen = await rig.run(pieces, ends=True, pause=cut is in_pieces, enough=partial(is_lawful, data))
            faults = lawful(data, seen)
            assert not faults, f"{data!r} in {[len(piece) for piece in pieces]}: " + "; ".join(map(str, faults))
            runs += 1
            accepted += bool(seen.arrived)
            refused += b"application/problem+json" in seen.received
    assert runs >= 2


async def test_any_answer_is_delivered_as_another_reads_it_or_refused_or_cut(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    generator = random.Random(random.getrandbits(64))
    end = time.perf_counter() + request.config.getoption("--fuzz-seconds")
    delivered = refused = 0
    async with running(tmp_path) as rig:
        while time.perf_counter() < end or not (delivered and refused):
            answer = mutations.answer(generator)
            sent = generator.choice((GET, GET, GET, HEAD, OLD))
            script = Script(pieces=(answer,), closes=generator.random() < 0.5)
            enough = partial(is_lawful_answer, sent, script)
            seen = await rig.run([sent + FOLLOWING], script=script, enough=enough)
            faults = lawful_answer(sent, script, seen)
            assert not faults, f"{sent[:4]!r} {answer!r} {script.closes}: " + "; ".join(map(str, faults))
            delivered += seen.received.startswith(b"HTTP/1.1 200")
            refused += seen.received.startswith(b"HTTP/1.1 502")
