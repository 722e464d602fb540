"""What the judges conclude from what they are told, and that what they judge can be started and served by."""

import json
import re

from tests.conformance.fuzzer_scripts import LIBRARY, SCRIPTS, Script
from tests.conformance.good_client import ask_often
from tests.conformance.outcome import Check, Outcome, as_json, table
from tests.conformance.target import descriptors, running
from tests.conformance.tls_fuzzer import verdict
from tests.conformance.web_socket import compare

SUMMARY = "TOTAL: 5\nSKIP: 0\nPASS: {passed}\nXFAIL: 0\nFAIL: {failed}\nXPASS: 0\n====\n"
FAILED = "FAILED:\n\t'{}'\n"
OK = {"behavior": "OK", "behaviorClose": "OK"}


def check(*, passed: bool) -> Check:
    return Check(name="a check", passed=passed, found="this", asked="that", notes=("a note",))


def test_a_script_is_passed_when_only_probes_that_are_set_apart_failed() -> None:
    script = Script(name="any", apart=".*x448.*")
    assert verdict(script, SUMMARY.format(passed=5, failed=0)) == ("5 probes passed, 0 not", True)
    assert verdict(script, SUMMARY.format(passed=4, failed=1) + FAILED.format("empty x448 share"))[1]
    text, is_passed = verdict(script, SUMMARY.format(passed=4, failed=1) + FAILED.format("empty x25519 share"))
    assert (text, is_passed) == ("4 probes passed, 1 not | empty x25519 share", False)


def test_a_script_that_ran_nothing_or_broke_or_does_not_name_what_failed_is_not_passed() -> None:
    script = Script(name="any")
    assert not verdict(script, SUMMARY.format(passed=0, failed=0))[1]
    assert not verdict(script, SUMMARY.format(passed=4, failed=1))[1]
    assert verdict(script, "", "ImportError: no such module") == ("broke: ImportError: no such module", False)


def test_each_script_is_listed_once_and_says_why_something_is_set_apart() -> None:
    scripts = [*SCRIPTS, *LIBRARY]
    assert len({script.name for script in scripts}) == len(scripts)
    for script in scripts:
        assert bool(script.apart) == bool(script.why) or script in LIBRARY
        re.compile(script.apart)
    assert all(script.why for script in LIBRARY)


def test_the_proxy_has_to_pass_what_the_echo_server_passes_and_nothing_else() -> None:
    failed = {"behavior": "FAILED", "behaviorClose": "OK"}
    assert compare({"1": OK, "2": failed}, {"1": OK, "2": failed}).passed
    assert not compare({"1": OK, "2": OK}, {"1": OK, "2": failed}).passed
    assert not compare({"1": OK}, {}).passed
    assert not compare({}, {}).passed


def test_an_outcome_without_a_check_or_with_a_failed_one_is_none() -> None:
    outcomes = [
        Outcome(judge="good", checks=[check(passed=True)]),
        Outcome(judge="bad", checks=[check(passed=True), check(passed=False)]),
        Outcome(judge="empty"),
        Outcome(judge="absent", missing="no such program"),
    ]
    assert [outcome.status for outcome in outcomes] == ["ok", "FAIL", "FAIL", "not run"]
    assert table(outcomes).endswith("1 ok, 2 FAIL, 1 not run\n")
    assert "a note" in table(outcomes)
    found = json.loads(as_json(outcomes))
    assert {name: each["status"] for name, each in found.items()} == {
        "good": "ok",
        "bad": "FAIL",
        "empty": "FAIL",
        "absent": "not run",
    }


def test_what_is_judged_serves_a_good_client() -> None:
    with running(workers=2) as target:
        served = ask_often(target, 3)
        assert (len(served.seconds), served.failures) == (3, [])
        assert len(target.workers()) == 2
        assert all(descriptors(pid) > 0 for pid in (*target.workers(), target.parent))
