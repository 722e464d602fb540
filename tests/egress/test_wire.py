"""The tables of checks over real sockets, as `scripts/bench-egress` puts them to other programs too."""

from pathlib import Path

from tests.egress import dns_checks, sni_checks
from tests.egress.__main__ import gate_holds, resolver_holds
from tests.egress.peers import our_gate, our_resolver
from tests.egress.wire import asked


def test_our_resolver_holds_every_check_over_udp(tmp_path: Path) -> None:
    with our_resolver(tmp_path) as (port, _):
        held = {each.what: resolver_holds(each, asked(port, each.data)) for each in dns_checks.CHECKS if not each.link_down}
    assert [what for what, holds in held.items() if not holds] == []


def test_our_gate_holds_every_check_over_tcp(tmp_path: Path) -> None:
    with our_gate(tmp_path) as ports:
        held = {each.what: gate_holds(each, ports) for each in sni_checks.CHECKS}
    assert [what for what, holds in held.items() if not holds] == []
