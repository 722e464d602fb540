"""The ways in which a case's bytes come: all at once, one by one, or in pieces cut anywhere."""

from collections.abc import Callable, Iterable
from random import Random
from typing import TypeAlias

from tests.desync.cases import Case
from tests.desync.judge import FOLLOWING, Fault, judge
from tests.desync.rig import Rig

Cut: TypeAlias = Callable[[bytes, Random], list[bytes]]

_SINGLE = 160  # bytes at either end of a long message that come one by one


def whole(data: bytes, _: Random) -> list[bytes]:
    return [data]


def singly(data: bytes, _: Random) -> list[bytes]:
    """Byte by byte; of a long message the middle in pieces of 4 KiB."""
    middle = data[_SINGLE : max(len(data) - _SINGLE, _SINGLE)]
    if len(middle) < _SINGLE:
        return [data[at : at + 1] for at in range(len(data))]
    head, tail = data[:_SINGLE], data[-_SINGLE:]
    return [
        *(head[at : at + 1] for at in range(len(head))),
        *(middle[at : at + 4096] for at in range(0, len(middle), 4096)),
        *(tail[at : at + 1] for at in range(len(tail))),
    ]


def in_pieces(data: bytes, random: Random) -> list[bytes]:
    """In two to four pieces."""
    cuts = sorted(random.randint(0, len(data)) for _ in range(random.randint(1, 3)))
    return [piece for piece in (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)) if piece]


DELIVERIES: dict[str, Cut] = {"whole": whole, "singly": singly, "in_pieces": in_pieces}


async def outcome(rig: Rig, case: Case, cut: Cut, random: Random) -> list[Fault]:
    """The faults of one case in one delivery."""
    data = case.raw if case.ends else case.raw + FOLLOWING
    seen = await rig.run(cut(data, random), ends=case.ends, pause=cut is in_pieces, enough=lambda seen: not judge(case, seen))
    return judge(case, seen)


async def report(rig: Rig, cases: Iterable[Case], cut: Cut, random: Random) -> str:
    """What is wrong with any of the cases, as a text with their bytes; empty when all are right."""
    lines = []
    for case in cases:
        if faults := await outcome(rig, case, cut, random):
            lines += [f"{case.name}: {case.raw[:300]!r}", *(f"    {fault}" for fault in faults), f"    {case.why}"]
    return "\n".join(lines)
