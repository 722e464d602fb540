"""`python -m tests.bench`: see README.md here, and `scripts/bench`."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import ingress, relay
from tests.bench.figures import BenchError, spread
from tests.bench.plot import plot
from tests.bench.processes import end_on_sigterm, own_processor, raise_descriptor_limit
from tests.bench.report import as_json, table
from tests.bench.site import made_site
from tests.bench.suite import Extent, Figure, Outcome, Suite, run_suite

SUITES = {suite.name: suite for suite in (ingress.SUITE, relay.SUITE)}
_FULL = Extent(rounds=5, seconds=2, idle=(0, 10, 100, 1000, 10_000), held=1000)
_QUICK = Extent(rounds=3, seconds=1, idle=(0, 1000), held=400)
_DESCRIPTORS = 65_536
_DESCRIPTORS_BESIDE = 2000
_BUSY = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes files where told to. Goals that are missed are no error."""
    options = _options(arguments)
    end_on_sigterm()
    suite = SUITES[options.suite]
    descriptors = raise_descriptor_limit(_DESCRIPTORS)
    try:
        extent = _possible(_QUICK if options.quick else _FULL, descriptors)
        outcome, peers = _run(suite, extent, descriptors, options)
    except BenchError as error:
        _note(str(error))
        return 1
    except KeyboardInterrupt:
        _note("interrupted")
        return 130
    figures = suite.figures(extent)
    sys.stdout.write(table(suite, figures, peers, outcome))
    if options.json is not None:
        found = as_json(suite, figures, peers, extent, outcome)
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if options.svg is not None:
        options.svg.write_text(_picture(suite, figures, peers, outcome))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = sorted({measurement.name for suite in SUITES.values() for measurement in suite.measurements})
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures our data paths beside other programs.")
    parser.add_argument("suite", nargs="?", choices=sorted(SUITES), default="ingress", help="what is measured (default: ingress)")
    parser.add_argument("--quick", action="store_true", help="three short rounds, fewer peers and idle connections")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help=f"only this: {', '.join(names)}; may be repeated"
    )
    parser.add_argument("--without", action="append", default=[], metavar="PEER", help="leave this peer out; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the ratios")
    return parser.parse_args(arguments)


def _possible(extent: Extent, descriptors: int) -> Extent:
    """As many idle connections as this machine lets a process have; what is left out is said."""
    idle = tuple(count for count in extent.idle if count + _DESCRIPTORS_BESIDE <= descriptors)
    for count in (count for count in extent.idle if count not in idle):
        _note(f"{descriptors} descriptors are not enough for {count} idle connections: left out")
    return Extent(rounds=extent.rounds, seconds=extent.seconds, idle=idle, held=extent.held)


def _run(suite: Suite, extent: Extent, descriptors: int, options: argparse.Namespace) -> tuple[Outcome, list[str]]:
    peers, measurements = [], []
    for peer in suite.peers if options.quick else (*suite.peers, *suite.more_peers):
        if peer.needs and shutil.which(peer.needs) is None:
            _note(f"without {peer.name}, which is not installed (Debian: apt-get install {peer.package})")
        elif peer.name not in options.without:
            peers.append(peer)
    for measurement in suite.measurements:
        if options.only and measurement.name not in options.only:
            continue
        if measurement.needs is not None and shutil.which(measurement.needs[0]) is None:
            program, package = measurement.needs
            _note(f"without {measurement.name}: {program} is not installed (Debian: apt-get install {package})")
        else:
            measurements.append(measurement)
    if (busy := os.getloadavg()[0]) > _BUSY:
        _note(f"this machine is busy (load {busy:.1f}): latencies will be wrong, and spreads wide")
    with made_site(descriptors, own_processor()) as site:
        return run_suite(suite, site, extent, peers=peers, measurements=measurements), [peer.name for peer in peers]


def _picture(suite: Suite, figures: Sequence[Figure], peers: Sequence[str], outcome: Outcome) -> str:
    rows, titles = [], {figure.name: figure.title for figure in figures}
    for figure in figures:
        found = {peer: spread(outcome.results.ratios(figure.name, suite.ours.name, peer)) for peer in peers}
        if kept := {peer: each for peer, each in found.items() if each is not None}:
            rows.append((figure.title, kept))
    return plot(
        f"{suite.name}: how many times a peer's cost is ours",
        rows,
        {titles[goal.figure]: goal.most for goal in suite.goals if goal.figure},
    )


def _note(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
