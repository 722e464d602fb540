"""What a bench is made of: subjects, measurements that give figures, and goals for them."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.bench.figures import DIRECT, BenchError, Results, Spread, spread
from tests.bench.processes import pin
from tests.bench.site import Site
from tests.bench.subjects import Running, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured: rounds, seconds of load for one figure, connections that are idle."""

    rounds: int
    seconds: int
    idle: tuple[int, ...]
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One kind of load. `run` gives its figures by their names, each as soon as it has it: those before a failure are kept.

    `baseline` gives the same figures without a subject: what a subject adds to them is kept as "added" figures. A `fresh` measurement
    gets a subject that was just started. `needs` is a load generator, by its program's and its Debian package's name.
    """

    name: str
    run: Callable[[Site, Running, Extent], Iterator[tuple[str, float]]]
    baseline: Callable[[Site, Extent], dict[str, float]] | None = None
    fresh: bool = False
    needs: tuple[str, str] | None = None
    leaves_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A row of the table; lower is better. `name` may have one `{}`, for how many connections are idle. `scale` makes the unit."""

    name: str
    title: str
    unit: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is to be reached: the middle of `values`, one for each round, is at most `most`.

    `figure` is named where the values are our ratios to a peer's figure, so that the goal can be drawn beside them.
    """

    title: str
    most: float
    unit: str
    values: Callable[[Results], list[float]]
    figure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """`ours` is compared with the `peers`; with `more_peers` too when there is time."""

    name: str
    ours: Subject
    peers: tuple[Subject, ...]
    more_peers: tuple[Subject, ...] = ()
    measurements: tuple[Measurement, ...]
    figures: Callable[[Extent], list[Figure]]
    goals: tuple[Goal, ...]
    check: Callable[[Site, Sequence[Running]], dict[str, object]]


@dataclass(slots=True)
class Outcome:
    """All that a run has found. `facts` are what every subject was seen to do before anything was measured."""

    results: Results
    facts: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def run_suite(
    suite: Suite, site: Site, extent: Extent, *, peers: Sequence[Subject], measurements: Sequence[Measurement]
) -> Outcome:
    """Every measurement of every subject, in rounds. Raises `BenchError` when a subject does not start."""
    outcome = Outcome(Results(extent.rounds))
    subjects = [suite.ours, *peers]
    with ExitStack() as stack:
        lasting = {}
        for subject in subjects:
            lasting[subject.name] = _start(stack, subject, site)
        outcome.facts = suite.check(site, list(lasting.values()))
        for number in range(extent.rounds):
            turn = number % len(subjects)
            for measurement in measurements:
                begun = time.monotonic()
                _measure(outcome, measurement, site, extent, [*subjects[turn:], *subjects[:turn]], lasting, number)
                _note(f"round {number + 1} of {extent.rounds}: {measurement.name}, {time.monotonic() - begun:.0f} s")
    return outcome


def _measure(
    outcome: Outcome,
    measurement: Measurement,
    site: Site,
    extent: Extent,
    subjects: Sequence[Subject],
    lasting: dict[str, Running],
    number: int,
) -> None:
    """One measurement of all subjects that it is for. What fails is noted, and missing in this round."""
    results = outcome.results
    base: dict[str, float] = {}
    try:
        if measurement.baseline is not None:
            base = measurement.baseline(site, extent)
            for figure, value in base.items():
                results.put(figure, DIRECT, number, value)
    except BenchError as error:
        _fail(outcome, f"{measurement.name}, without a subject, round {number + 1}: {error}")
        return
    for subject in subjects:
        if subject.name in measurement.leaves_out:
            continue
        try:
            with ExitStack() as stack:
                running = _start(stack, subject, site) if measurement.fresh else lasting[subject.name]
                running.rest()
                for figure, value in measurement.run(site, running, extent):
                    results.put(figure, subject.name, number, value)
                    if figure in base:
                        results.put(f"added {figure}", subject.name, number, value - base[figure])
        except BenchError as error:
            _fail(outcome, f"{measurement.name}, {subject.name}, round {number + 1}: {error}")


def _start(stack: ExitStack, subject: Subject, site: Site) -> Running:
    running = stack.enter_context(subject.start(site))
    if site.processor is not None:
        pin(running.pids, site.processor)
    return running


def judge(goal: Goal, results: Results) -> tuple[Spread | None, bool | None]:
    """What was found, and whether it is the goal; None for what was not measured."""
    found = spread(goal.values(results))
    return found, None if found is None else found.median <= goal.most


def _fail(outcome: Outcome, what: str) -> None:
    outcome.failures.append(what)
    _note(f"failed: {what}")


def _note(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
