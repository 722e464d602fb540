"""How full the machine's memory is, and what that means. Pure: text and numbers in, values out."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

HYSTERESIS = 3
"""Percentage points below a threshold at which it is left again."""

Stage: TypeAlias = Literal["calm", "warned", "shedding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes. `tmpfs` is shared memory and files in memory, `cache` the page cache without it.

    `limit` and `charged` are of the control group that this process is in, 0 where it has no limit.
    """

    total: int
    available: int
    tmpfs: int
    cache: int
    limit: int = 0
    charged: int = 0

    @property
    def used_percent(self) -> int:
        """Of the machine or of the group, whichever is the fuller; rounded down, 0 to 100."""
        machine = 100 * (self.total - self.available) // self.total
        group = 100 * self.charged // self.limit if self.limit else 0
        return max(0, min(100, max(machine, group)))


def parse_meminfo(text: str) -> Memory:
    """The memory of a /proc/meminfo (proc_meminfo(5)). Raises ValueError when a line that is needed is missing or makes no sense."""
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable", "Buffers", "Cached", "Shmem"):
            numbers[name] = int(rest.removesuffix("kB")) * 1024
    try:
        total, tmpfs = numbers["MemTotal"], numbers["Shmem"]
        cache = max(0, numbers["Cached"] + numbers["Buffers"] - tmpfs)
        available = numbers["MemAvailable"]
    except KeyError as error:
        raise ValueError(f"meminfo has no line {error}") from None
    if total <= 0 or min(numbers.values()) < 0:
        raise ValueError("meminfo makes no sense")
    return Memory(total=total, available=available, tmpfs=tmpfs, cache=cache)


def next_stage(stage: Stage, percent: int, *, warn: int, shed: int) -> Stage:
    """The stage after a measurement of `percent` used. A threshold is reached at once, and left `HYSTERESIS` points below it."""
    if percent >= shed or (stage == "shedding" and percent > shed - HYSTERESIS):
        return "shedding"
    if percent >= warn or (stage != "calm" and percent > warn - HYSTERESIS):
        return "warned"
    return "calm"
