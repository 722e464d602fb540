"""The arithmetic of a bench, and what the load generators print. Pure.

A figure is measured once in every round for every subject, so that whatever slows the machine for a while slows all of them: ratios
are taken within a round, and only then is their middle taken over the rounds.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

DIRECT = "direct"
"""The name under which what the load generator sees without any subject is kept."""


class BenchError(Exception):
    """A measurement that could not be made, in words for whoever started it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and both ends of some values."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread | None:
    """None without a value; what is not a number counts as none."""
    kept = [value for value in values if not math.isnan(value)]
    return Spread(median(kept), min(kept), max(kept)) if kept else None


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of each round; not a number where one of the two is missing, or is so little that it was lost in what was subtracted from it."""
    return [mine / other if mine > 0 and other > 0 else math.nan for mine, other in zip(ours, theirs, strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of `values` that at least `percent` of them do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(slots=True)
class Results:
    """figure -> subject -> its value in each round, not a number where it could not be measured."""

    rounds: int
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def put(self, figure: str, subject: str, number: int, value: float) -> None:
        """Of round `number`, from 0."""
        self.values.setdefault(figure, {}).setdefault(subject, [math.nan] * self.rounds)[number] = value

    def of(self, figure: str, subject: str) -> list[float]:
        """Of each round."""
        return self.values.get(figure, {}).get(subject, [math.nan] * self.rounds)

    def ratios(self, figure: str, subject: str, peer: str) -> list[float]:
        """Of `subject` to `peer`, of each round."""
        return ratios(self.of(figure, subject), self.of(figure, peer))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrkSummary:
    """What wrk's `done` hook is given (`WRK_DONE`): counts, bytes read after TLS, times in microseconds."""

    requests: int
    bytes: int
    microseconds: int
    p50: float
    p99: float
    connect_errors: int
    read_errors: int
    write_errors: int
    status_errors: int
    timeouts: int


WRK_DONE = """\
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nsummary {"requests":%d,"bytes":%d,"microseconds":%d,"p50":%d,"p99":%d,"connect_errors":%d,' ..
    '"read_errors":%d,"write_errors":%d,"status_errors":%d,"timeouts":%d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), e.connect,
    e.read, e.write, e.status, e.timeout))
end
"""


def read_wrk(output: str, *, least: int = 1) -> WrkSummary:
    """From all that wrk printed. Raises `BenchError` for fewer whole answers than `least`, for a bad one, and for nothing at all."""
    found = re.search(r"^summary (\{.*\})$", output, re.MULTILINE)
    if found is None:
        raise BenchError(f"wrk printed no summary: {output[-300:].strip()!r}")
    summary = WrkSummary(**json.loads(found[1]))
    if summary.requests < least or summary.status_errors or summary.bytes == 0:
        raise BenchError(f"wrk got no good answers: {found[1]}")
    return summary


def read_h2load(log: str, *, skip_seconds: float) -> list[float]:
    """Microseconds of each request in h2load's --log-file (start in microseconds, status, duration in microseconds).

    Without those that began in the first `skip_seconds`, when connections are still being made. Raises `BenchError` for a request that
    was not answered with 200.
    """
    lines = [tuple(int(word) for word in line.split("\t")[:3]) for line in log.splitlines() if line]
    if failed := sum(status != 200 for _, status, _ in lines):
        raise BenchError(f"{failed} of {len(lines)} requests at a fixed rate were not answered with 200")
    start = min((begun for begun, _, _ in lines), default=0) + skip_seconds * 1e6
    kept = [float(duration) for begun, _, duration in lines if begun >= start]
    if not kept:
        raise BenchError("no request at a fixed rate was measured")
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a client and a server agreed on, in OpenSSL's names."""

    version: str
    suite: str
    group: str
    signature: str


def read_handshake(output: str) -> Handshake:
    """From what `openssl s_client -brief` says. Raises `BenchError`."""

    def line(name: str) -> str:
        found = re.search(rf"^(?:{name}): (.+)$", output, re.MULTILINE)
        if found is None:
            raise BenchError(f"no TLS handshake: {output[-300:].strip()!r}")
        return found[1].strip()

    return Handshake(
        version=line("Protocol version"),
        suite=line("Ciphersuite"),
        group=line("(?:Server|Peer) Temp Key|Negotiated TLS1.3 group").partition(",")[0],
        signature=line("Signature type"),
    )
