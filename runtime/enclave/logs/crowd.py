"""Patterns that are looked for at the same places, found in a number of steps that hardly grows with how many there are.

Pure. Sorted, all patterns that a text begins with are beginnings of the greatest one that is not behind the text; so one look-up finds
that one, and the rest are its own beginnings, through which a step leads to half as many at a time.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Pattern:
    """`shorter` is the longest other pattern that it begins with, `jump` one that is further away (Myers, "An applicative random-access
    stack", 1983), `depth` how many there are."""

    data: bytes
    label: bytes
    shorter: "_Pattern | None"
    jump: "_Pattern | None"
    depth: int


Place = tuple[int, int, bytes]
"""(start, end, label)."""


@dataclass(frozen=True, slots=True)
class One:
    """A pattern alone."""

    data: bytes
    label: bytes

    def runs(self, text: bytes, positions: Iterable[int], offset: int) -> Iterator[Place]:
        """Where it stands `offset` before any of the positions, which go up; what overlaps ("aaaa...") is one place."""
        begin, end, size, data = 0, -1, len(self.data), self.data
        for position in positions:
            start = position - offset
            if start >= 0 and text.startswith(data, start):
                if start >= end >= 0:
                    yield begin, end, self.label
                begin = begin if start < end else start
                end = start + size
        if end >= 0:
            yield begin, end, self.label


class Many:
    """Any number of patterns, two or more."""

    def __init__(self, patterns: Iterable[One]) -> None:
        self._patterns: list[_Pattern] = []
        above: list[_Pattern] = []
        for each in sorted(patterns, key=lambda each: each.data):
            while above and not each.data.startswith(above[-1].data):
                above.pop()
            shorter = above[-1] if above else None
            above.append(_Pattern(each.data, each.label, shorter, _jump(shorter), 0 if shorter is None else shorter.depth + 1))
            self._patterns.append(above[-1])
        self._sorted = [each.data for each in self._patterns]
        self._longest = max(map(len, self._sorted))

    def runs(self, text: bytes, positions: Iterable[int], offset: int) -> Iterator[Place]:
        """As `One.runs`, of the longest that stands at each place; places that overlap are one, under the first label."""
        begin, end, label = 0, -1, b""
        for position in positions:
            start = position - offset
            if start >= 0 and (found := self._longest_at(text[start : start + self._longest])) is not None:
                if start >= end:
                    if end >= 0:
                        yield begin, end, label
                    begin, label = start, found.label
                end = max(end, start + len(found.data))
        if end >= 0:
            yield begin, end, label

    def _longest_at(self, here: bytes) -> _Pattern | None:
        index = bisect_right(self._sorted, here)
        if not index:
            return None
        found: _Pattern | None = self._patterns[index - 1]
        assert found is not None
        if here.startswith(found.data):
            return found
        common = _common(here, found.data)
        while found is not None and len(found.data) > common:
            is_far = found.jump is not None and len(found.jump.data) > common
            found = found.jump if is_far else found.shorter
        return found


def together(patterns: list[One]) -> One | Many:
    """All of them as one to ask."""
    return patterns[0] if len(patterns) == 1 else Many(patterns)


def _jump(shorter: _Pattern | None) -> _Pattern | None:
    """Over as many as the last two jumps together where these were equally far, else to the next one."""
    if shorter is None or shorter.jump is None or shorter.jump.jump is None:
        return shorter
    near, far = shorter.jump, shorter.jump.jump
    return far if shorter.depth - near.depth == near.depth - far.depth else shorter


def _common(left: bytes, right: bytes) -> int:
    """How many of the first bytes are the same."""
    least, most = 0, min(len(left), len(right))
    while least < most:
        middle = (least + most + 1) // 2
        if left[least:middle] == right[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
