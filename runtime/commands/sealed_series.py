"""Opens what a parent stored of an enclave's sealed lines, and says where the series of batches is not the one that was made.

Pure. Runs where the operator's key is. The parent, which had every byte in its hands, is believed in nothing (protocol/sealed_logs.py says
what it cannot do unnoticed, and what it can).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from runtime.protocol.errors import ProtocolError
from runtime.protocol.sealed_logs import Batch, LogLine, open_batch
from runtime.protocol.sealing import SealingKey

Fault: TypeAlias = Literal["not_opened", "foreign", "missing", "out_of_order", "repeated", "behind_the_end", "no_end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A line of a boot."""

    boot_id: bytes
    line: LogLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that the enclave did not send like this. `no_end` may only mean that the boot goes on, or ended abruptly."""

    boot_id: bytes
    fault: Fault
    detail: str


@dataclass(slots=True)
class _Boot:
    token: bytes | None = None
    following: int = 1
    missing: list[range] = field(default_factory=list)
    end: int | None = None


class SealedSeries:
    """`open` what was stored, in the order in which it was stored; `finish` when there is no more."""

    def __init__(self, key: SealingKey) -> None:
        self._key = key
        self._boots: dict[bytes, _Boot] = {}

    def open(self, boot_id: bytes, sequence: int, sealed: bytes) -> Iterator[Opened | Trouble]:
        """What is wrong with one stored batch, then its lines; no lines of one that was not made here, or was opened before."""
        boot = self._boots.setdefault(boot_id, _Boot())
        try:
            batch = open_batch(self._key, sealed, boot_id=boot_id, sequence=sequence)
        except ProtocolError as error:
            yield Trouble(boot_id=boot_id, fault="not_opened", detail=f"the batch of sequence {sequence}: {error.detail}")
            return
        boot.token = boot.token or batch.token
        if batch.token != boot.token:
            detail = f"the batch of sequence {sequence} was not made by the boot that made the first one"
            yield Trouble(boot_id=boot_id, fault="foreign", detail=detail)
            return
        trouble = _place(boot, batch)
        if trouble is not None:
            yield Trouble(boot_id=boot_id, fault=trouble[0], detail=trouble[1])
        if trouble is None or trouble[0] != "repeated":
            yield from (Opened(boot_id=boot_id, line=line) for line in batch.lines)

    def finish(self) -> Iterator[Trouble]:
        """What no later batch has made good."""
        for boot_id, boot in self._boots.items():
            if boot.end is None:
                detail = f"nothing behind batch {boot.following - 1}: it goes on, ended abruptly, or its end is withheld"
                yield Trouble(boot_id=boot_id, fault="no_end", detail=detail)


def _place(boot: _Boot, batch: Batch) -> tuple[Fault, str] | None:
    """Notes where the batch stands in the series, and what is wrong with that."""
    number, following = batch.number, boot.following
    boot.following = max(following, number + 1)
    if batch.is_last and boot.end is None:
        boot.end = number
    if number < following:
        gap = next((gap for gap in boot.missing if number in gap), None)
        if gap is None:
            return "repeated", f"batch {number} once more"
        boot.missing.remove(gap)
        boot.missing += [rest for rest in (range(gap.start, number), range(number + 1, gap.stop)) if rest]
        return "out_of_order", f"batch {number} behind batch {following - 1}"
    if boot.end is not None and number > boot.end:
        return "behind_the_end", f"batch {number}, and {boot.end} was the last"
    if number > following:
        boot.missing.append(range(following, number))
        return "missing", f"batch {following}" + (f" to {number - 1}" if number - 1 > following else "")
    return None
