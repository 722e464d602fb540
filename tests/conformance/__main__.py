"""`python -m tests.conformance [JUDGE...]`: see README.md here, and `scripts/conformance`."""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conformance import connections, evervault, slow_clients, stalled, tls_fuzzer, tls_scanners, tools, volume, web_socket
from tests.conformance.outcome import Check, Outcome, as_json, table

_DESCRIPTORS = 20_000

JUDGES: dict[str, Callable[[argparse.Namespace], list[Check]]] = {
    "testssl": lambda _: tls_scanners.judge_testssl(tools.debian("testssl", "testssl.sh")),
    "sslyze": lambda _: tls_scanners.judge_sslyze(tools.python3()),
    "tlsfuzzer": lambda options: tls_fuzzer.judge(tools.python3(), tools.tlsfuzzer(options.tlsfuzzer)),
    "connections": lambda _: connections.judge(),
    "stalled": lambda _: stalled.judge(),
    "slowhttptest": lambda _: slow_clients.judge(tools.debian("slowhttptest", "slowhttptest")),
    "websocket": lambda options: web_socket.judge(tools.autobahn(), tools.python3(), large=options.large),
    "evervault": lambda _: evervault.judge(tools.python3(), tools.debian("faketime", "faketime")),
    "volume": lambda options: volume.judge(options.gigabytes),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the judges that are named, or all. Exit status: 0 when each ran and found nothing wrong, 1 otherwise, 2 usage."""
    options = _options(arguments)
    _raise_descriptor_limit()
    outcomes = []
    try:
        for name in options.judges or JUDGES:
            tools.note(f"{name} begins")
            outcomes.append(_judged(name, options))
    except KeyboardInterrupt:
        tools.note("interrupted")
    sys.stdout.write(as_json(outcomes) if options.json else table(outcomes))
    return 0 if outcomes and all(outcome.status == "ok" for outcome in outcomes) else 1


def _judged(name: str, options: argparse.Namespace) -> Outcome:
    outcome, begun = Outcome(judge=name), time.monotonic()
    try:
        outcome.checks = JUDGES[name](options)
    except tools.Missing as missing:
        outcome.missing = str(missing)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/conformance", description="Lets other people's test suites, and loads, judge the public port."
    )
    parser.add_argument("judges", nargs="*", metavar="JUDGE", help=f"{', '.join(JUDGES)} (all)")
    parser.add_argument("--gigabytes", type=float, default=10.0, metavar="N", help="volume: how much in each direction (10)")
    parser.add_argument("--large", action="store_true", help="websocket: also group 9, messages of up to 16 MiB")
    parser.add_argument("--tlsfuzzer", type=Path, metavar="DIR", help="a checkout of tlsfuzzer (.state/conformance/tlsfuzzer)")
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.judges if name not in JUDGES]:
        parser.error(f"no such judge: {', '.join(unknown)}; there are {', '.join(JUDGES)}")
    if options.tlsfuzzer is not None:
        options.tlsfuzzer = options.tlsfuzzer.resolve()
    return options


def _raise_descriptor_limit() -> None:
    """Thousands of clients are held here and at the parent, which inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
