"""The scores as a table: `python -m tests.desync.scores [--show] [--http-garden TROPHIES.md]`. With `--show` every fault is told."""

import argparse
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import trio

from tests.desync.answer_judge import answer_outcome
from tests.desync.answers import ANSWERS
from tests.desync.corpus import GROUPS
from tests.desync.delivery import DELIVERIES, outcome, whole
from tests.desync.judge import FOLLOWING, Fault, lawful
from tests.desync.public import garden, guardian
from tests.desync.rig import Rig, running


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def requests_of(rig: Rig) -> AsyncIterator[tuple[str, str, list[Fault]]]:
    corpora = {f"requests, {group}": cases for group, cases in GROUPS.items()} | {"http-desync-guardian": guardian()}
    for corpus, cases in corpora.items():
        for case in cases:
            faults: list[Fault] = []
            for cut in DELIVERIES.values():
                faults = faults or await outcome(rig, case, cut, Random(case.name))
            yield corpus, case.name, faults


async def payloads_of(rig: Rig, trophies: Path) -> AsyncIterator[tuple[str, str, list[Fault]]]:
    for payload in garden(trophies):
        data = payload + FOLLOWING
        for cut in DELIVERIES.values():
            seen = await rig.run(cut(data, Random(0)), ends=True)
            if (faults := lawful(data, seen)) or cut is whole:
                yield "http-garden", repr(payload), faults


async def answers_of(rig: Rig) -> AsyncIterator[tuple[str, str, list[Fault]]]:
    for group, cases in ANSWERS.items():
        for case in cases:
            faults = await answer_outcome(rig, case) or await answer_outcome(rig, case, singly=True)
            yield f"answers, {group}", case.name, faults


async def main(options: argparse.Namespace) -> int:
    table: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as rig:
            sources = [requests_of(rig), answers_of(rig)]
            if options.http_garden is not None:
                sources.append(payloads_of(rig, options.http_garden))
            for source in sources:
                async for corpus, name, faults in source:
                    row = table.setdefault(corpus, [0, 0, 0])
                    row[0] += 1
                    row[1] += bool(faults)
                    row[2] += any(fault.critical for fault in faults)
                    if faults and options.show:
                        say(f"{corpus}: {name}: " + "; ".join(map(str, faults))[:400])
    for line in lines_of(table):
        say(line)
    return 1 if any(row[1] for row in table.values()) else 0


def lines_of(table: dict[str, list[int]]) -> Iterator[str]:
    yield f"{'corpus':<24}{'cases':>7}{'right':>7}{'wrong':>7}{'critical':>10}"
    for corpus, (cases, wrong, critical) in table.items():
        yield f"{corpus:<24}{cases:>7}{cases - wrong:>7}{wrong:>7}{critical:>10}"
    cases, wrong, critical = (sum(row[column] for row in table.values()) for column in range(3))
    yield f"{'all':<24}{cases:>7}{cases - wrong:>7}{wrong:>7}{critical:>10}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="tell what is wrong")
    parser.add_argument("--http-garden", type=Path, metavar="TROPHIES.md", help="judge http-garden's payloads too")
    sys.exit(trio.run(main, parser.parse_args()))
