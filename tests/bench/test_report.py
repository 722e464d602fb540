"""What a bench says of its results."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from tests.bench.__main__ import SUITES, main
from tests.bench.figures import DIRECT, BenchError, Results, Spread
from tests.bench.ingress import per_request
from tests.bench.plot import plot
from tests.bench.report import as_json, table
from tests.bench.suite import Extent, Outcome, judge

SUITE = SUITES["ingress"]
EXTENT = Extent(rounds=3, seconds=1, idle=(0, 10_000), held=10)
PEERS = ["nginx", "haproxy"]


def outcome(ours: Sequence[float], nginx: Sequence[float]) -> Outcome:
    """Nanoseconds of a request, of each round."""
    results = Results(3)
    for subject, values in (("ours", ours), ("nginx", nginx)):
        for number, value in enumerate(values):
            results.put("request", subject, number, value)
    return Outcome(results, failures=["up, haproxy, round 1: wrk did not end"])


def test_the_table_shows_medians_ratios_and_what_failed() -> None:
    shown = table(SUITE, SUITE.figures(EXTENT), PEERS, outcome([26_000, 36_000, 31_000], [20_000, 30_000, 25_000]))
    row = next(line for line in shown.splitlines() if line.startswith("CPU per keep-alive request, µs"))
    assert "31.0 (26.0 to 36.0)" in row
    assert "25.0 (20.0 to 30.0)" in row
    assert "1.24 (1.20 to 1.30)" in row
    assert "wrk did not end" in shown
    assert "memory per idle TLS connection, KiB" not in shown


def test_the_middle_of_the_rounds_decides_on_a_goal() -> None:
    goal = next(goal for goal in SUITE.goals if goal.figure == "request")
    assert judge(goal, outcome([26, 26, 90], [20, 20, 20]).results) == (Spread(1.3, 1.3, 4.5), True)
    assert judge(goal, outcome([27, 27, 10], [20, 20, 20]).results)[1] is False
    assert judge(goal, Results(3)) == (None, None)


def test_a_goal_is_shown_as_reached_missed_or_not_measured() -> None:
    def said(found: Outcome) -> list[str]:
        return [line.split()[-1] for line in table(SUITE, SUITE.figures(EXTENT), PEERS, found).splitlines() if " at most " in line]

    assert said(outcome([20] * 3, [20] * 3)) == ["reached", *["measured"] * 4]
    assert said(outcome([40] * 3, [20] * 3)) == ["MISSED", *["measured"] * 4]


def test_p99_beside_idle_connections_is_judged_against_that_without() -> None:
    results = Results(3)
    for number in range(3):
        results.put("p99 beside 0", "ours", number, 1000.0)
        results.put("p99 beside 10000", "ours", number, 1400.0)
    goal = SUITE.goals[-1]
    assert judge(goal, results) == (Spread(1.4, 1.4, 1.4), True)


def test_the_json_has_every_round_and_null_for_what_is_missing() -> None:
    found = outcome([26_000, 36_000], [20_000, 30_000])
    found.results.put("p99 beside 0", DIRECT, 0, 200_000)
    read = json.loads(json.dumps(as_json(SUITE, SUITE.figures(EXTENT), PEERS, EXTENT, found), allow_nan=False))
    assert read["figures"]["request"]["values"]["ours"] == [26.0, 36.0, None]
    assert read["figures"]["request"]["ratios"] == {"nginx": {"median": 1.25, "least": 1.2, "most": 1.3}, "haproxy": None}
    assert read["direct"]["p99 beside 0"] == [200.0, None, None]
    assert read["goals"][0]["reached"] is True
    assert read["machine"]["cores"] >= 1


def test_the_picture_has_a_mark_for_each_peer_and_one_for_the_goal() -> None:
    drawn = plot("a < b", [("request", {"nginx": Spread(2.0, 1.5, 4.0), "haproxy": Spread(1.0, 0.5, 1.1)})], {"request": 1.3})
    root = ET.fromstring(drawn)
    circles = [each for each in root.iter("{http://www.w3.org/2000/svg}circle") if each.get("r") == "4.5"]
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["goal: 1.3x", "nginx: 2.00x (1.50 to 4.00)", "haproxy: 1.00x (0.50 to 1.10)"]
    assert float(circles[0].get("cx") or 0) > float(circles[1].get("cx") or 0)


def test_a_picture_without_results_is_still_one() -> None:
    assert ET.fromstring(plot("nothing", [], {})).tag.endswith("svg")


def test_a_measurement_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "speed"])
    assert "invalid choice: 'speed'" in capsys.readouterr().err


def test_a_run_that_is_mostly_about_opening_connections_tells_nothing_of_requests() -> None:
    assert per_request(1_000_000, 100_000, 950) == 1000
    with pytest.raises(BenchError, match="too few"):
        per_request(1_000_000, 600_000, 950)
