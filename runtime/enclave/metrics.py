"""The numbers that the parent may ask for, gathered when it asks. Runs in PID 1; what is counted says nothing about what is carried."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice

from runtime.protocol.link_values import METRICS_MAX


class Metrics:
    """Gauges by name, whole numbers. A source gives those of one part of the runtime and must neither wait nor fail."""

    def __init__(self) -> None:
        self.is_enabled = True
        self._sources: list[Callable[[], Mapping[str, int]]] = []

    def add(self, source: Callable[[], Mapping[str, int]]) -> None:
        """Takes a source in; names are unique among all."""
        self._sources.append(source)

    def read(self) -> dict[str, int]:
        """All of them now, at most as many as the control link carries, those of earlier sources first; none when not enabled."""
        if not self.is_enabled:
            return {}
        values = (pair for source in self._sources for pair in source().items())
        return dict(islice(values, METRICS_MAX))


SUMS_MAX = 384
"""Metrics of `Sums`, which come from a worker and must not push out others'."""
OTHERS_MAX = 16
"""Metrics that stand for those of their name that are over `SUMS_MAX`."""


class Sums:
    """Counts that workers add to. They outlive the worker. One over `SUMS_MAX` is added to `name{others="all"}`."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()

    def add(self, numbers: Mapping[str, int]) -> None:
        """What was counted since the last time."""
        for name, number in numbers.items():
            is_own = name in self._sums or len(self._sums) < SUMS_MAX
            kept = name if is_own else name.partition("{")[0] + '{others="all"}'
            if kept in self._sums or len(self._sums) < SUMS_MAX + OTHERS_MAX:
                self._sums[kept] = min(self._sums[kept] + number, 2**63 - 1)

    def read(self) -> Mapping[str, int]:
        """All of them now."""
        return self._sums
