"""`scripts/bench-egress`: the checks of this folder put to our resolver and gate and to others in one run."""

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.egress import dns_checks, sni_checks
from tests.egress.peers import dnsmasq, nginx_preread, our_gate, our_resolver, unbound
from tests.egress.wire import asked, echo, passes

Resolver = Callable[[Path], AbstractContextManager[tuple[int, tuple[int, ...]]]]

RESOLVERS: dict[str, tuple[Resolver, str]] = {
    "ours": (our_resolver, ""),
    "unbound": (unbound, "unbound"),
    "dnsmasq": (dnsmasq, "dnsmasq"),
}
_ADDRESS = re.compile(rb"\x00\x01\x00\x01....\x00\x04\x7f[\x40-\x7f]", re.DOTALL)
"""A record of type A with an address of the pool for names; peers give one too."""


def main() -> int:
    """Prints two tables. Exit status: 0 ours holds every check, 1 not."""
    with TemporaryDirectory(prefix="egress-") as name, ExitStack() as stack:
        folder = Path(name)
        running = {}
        for peer, (start, program) in RESOLVERS.items():
            if program and shutil.which(program) is None:
                sys.stderr.write(f"bench-egress: without {peer}, which is not installed\n")
            else:
                running[peer] = stack.enter_context(start(folder))
        names = [each for each in dns_checks.CHECKS if not each.link_down]
        held = {peer: [resolver_holds(each, asked(port, each.data)) for each in names] for peer, (port, _) in running.items()}
        _show("allow-listing resolver", [each.what for each in names], held)
        gates = {"ours": stack.enter_context(our_gate(folder))}
        if shutil.which("nginx") is not None:
            gates["nginx ssl_preread"] = stack.enter_context(nginx_preread(folder, stack.enter_context(echo())))
        first = {peer: [gate_holds(each, ports) for each in sni_checks.CHECKS] for peer, ports in gates.items()}
        _show("gate for TLS", [each.what for each in sni_checks.CHECKS], first)
    return 0 if all(held["ours"]) and all(first["ours"]) else 1


def resolver_holds(check: dns_checks.Check, answer: bytes | None) -> bool:
    """An allowed name gets its address, and whatever else is asked gets none."""
    return (answer is not None and _ADDRESS.search(answer, 12) is not None) == (check.addresses > 0)


def gate_holds(check: sni_checks.Check, ports: dict[str, int]) -> bool:
    """What is allowed passes, and of whatever else nothing does. A gate that has no such exception does not hold it."""
    port = ports.get(check.exceptions[0] if check.exceptions else "")
    return port is not None and passes(port, check.data) == (check.reason == "allowed")


def _show(title: str, checks: Sequence[str], held: dict[str, list[bool]]) -> None:
    sys.stdout.write(f"\n{title}: {len(checks)} checks\n")
    for peer, results in held.items():
        sys.stdout.write(f"  {peer:<18} holds {sum(results)}\n")
    width = max(map(len, checks))
    differing = [index for index in range(len(checks)) if not all(results[index] for results in held.values())]
    if differing:
        sys.stdout.write(f"  {'not held by all':<{width}}  {'  '.join(held)}\n")
    for index in differing:
        cells = "  ".join(f"{'yes' if results[index] else 'NO':<{len(peer)}}" for peer, results in held.items())
        sys.stdout.write(f"  {checks[index]:<{width}}  {cells}\n")


if __name__ == "__main__":
    sys.exit(main())
