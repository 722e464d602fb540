"""What the egress worker hands over: lines and counts, within what PID 1 takes."""

import json
from collections import Counter
from collections.abc import Mapping

from runtime.enclave.metrics import OTHERS_MAX, SUMS_MAX, Sums
from runtime.enclave.traffic.egress_log import EgressLog
from runtime.enclave.traffic.egress_road import Flow
from runtime.enclave.traffic.resolver import Lookup
from runtime.protocol.dns import A
from runtime.protocol.worker_link import COUNTS_MAX


def carried(rule: int) -> Flow:
    return Flow(way="direct", host="db.test", port=443, rule=rule, reason="allowed", ending="eof", sent=3)


def test_counts_of_many_rules_go_in_as_many_messages_as_pid_1_takes() -> None:
    counted: list[Mapping[str, int]] = []
    log = EgressLog(lambda _lines: None, counted.append)
    for rule in range(COUNTS_MAX):
        log.flow(carried(rule))
    log.flush()
    assert [len(numbers) for numbers in counted] == [COUNTS_MAX] * 3
    assert len({name for numbers in counted for name in numbers}) == 3 * COUNTS_MAX
    log.flush()
    assert len(counted) == 3


def test_a_flood_of_questions_hides_no_connection() -> None:
    sent: list[bytes] = []
    log = EgressLog(sent.append, lambda _counts: None)
    for _ in range(10_000):
        log.lookup(Lookup(name="a.below.test", type=A, rule=None, reason="name_not_allowed", code=5))
    log.flow(Flow(way="direct", host="127.64.0.9", port=22, rule=None, reason="address_without_name"))
    log.flush()
    ways = Counter(json.loads(line)["way"] for line in b"".join(sent).splitlines())
    assert ways["direct"] == 1
    assert 0 < ways["lookup"] < 10_000


def test_counts_over_the_most_are_added_to_those_of_all_others() -> None:
    sums = Sums()
    for rule in range(2 * SUMS_MAX):
        sums.add({f'egress_connections{{rule="{rule}"}}': 1})
    assert sums.read()['egress_connections{others="all"}'] == SUMS_MAX
    assert sum(sums.read().values()) == 2 * SUMS_MAX
    sums.add({f"made_up_{number}": 1 for number in range(1000)})
    assert len(sums.read()) == SUMS_MAX + OTHERS_MAX
