"""The egress log read back: put to other rules, and made into the smallest list."""

import json
from pathlib import Path

import pytest

from runtime.cli import main
from runtime.enclave.traffic.egress_policy import EgressPolicy
from runtime.simulator.egress_records import as_toml, only_looked_up, recorded, smallest_rules
from tests.egress.policies import REST, RULES, policy


def line(way: str, host: str, reason: str, port: int | None = None, **more: object) -> str:
    fields: dict[str, object] = {"request": 1, "way": way, "host": host, "reason": reason, **more}
    return json.dumps(fields if port is None else {**fields, "port": port})


LINES = (
    line("lookup", "api.example.com", "allowed", type="A"),
    line("direct", "api.example.com", "allowed", 443),
    line("direct", "api.example.com", "allowed", 443),
    line("direct", "db.example.net", "refused", 5432),
    line("connect", "api.example.com", "port_not_allowed", 9443),
    line("lookup", "evil.test", "name_not_allowed", type="A"),
    line("socks", "10.1.2.3", "allowed", 5432),
    line("socks", "192.0.2.7", "address_not_allowed", 25),
    line("lookup", "a b", "not_a_name", type="A"),
    line("lookup", "localhost", "name_not_allowed", type="A"),
)
LOG = "\n".join(
    (
        '{"kind": "journal", "event": "egress.open"}',
        *(json.dumps({"kind": "log", "event": "egress:decisions", "line": each}) for each in LINES),
        json.dumps({"kind": "log", "event": "app", "line": LINES[5]}),
        "no JSON",
        "[1]",
        '{"way": 1, "host": [], "reason": null}',
        '{"way": "direct", "host": "x", "reason": "allowed", "port": "443"}',
        line("connect", "", "connect_method", 0),
    )
)


def test_it_is_read_as_the_parent_keeps_it_and_as_bare_lines() -> None:
    assert recorded(LOG) == recorded("\n".join(LINES))
    assert len(recorded(LOG)) == len(set(LINES)) == 9


def test_the_smallest_list_allows_what_was_asked_for_and_nothing_else(tmp_path: Path) -> None:
    records = recorded(LOG)
    text = as_toml(smallest_rules(records), only_looked_up(records))
    assert text == (
        "[egress]\nallow = [\n"
        '  { cidr = "10.1.2.3/32", ports = [5432] },\n'
        '  { cidr = "192.0.2.7/32", ports = [25] },\n'
        '  { name = "api.example.com", ports = [443, 9443] },\n'
        '  { name = "db.example.net", ports = [5432] },\n'
        '  { name = "evil.test", ports = [443] },  # only looked up: its port was not seen\n'
        "]\n"
    )
    learned: EgressPolicy = policy("\n" + text)
    assert learned.decide("api.example.com", 9443).allowed
    assert not learned.decide("api.example.com", 80).allowed
    assert not learned.decide("10.1.2.4", 5432).allowed


def test_other_rules_are_put_to_what_was_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, same, less = tmp_path / "events.jsonl", tmp_path / "same.toml", tmp_path / "less.toml"
    log.write_text(LOG)
    same.write_text(REST + RULES)
    less.write_text(REST + '[egress]\nallow = [{ name = "api.example.com", ports = [443, 9443] }]\n')
    assert main(["egress", "test", str(log), "-c", str(same)]) == 0
    assert "NOW" not in capsys.readouterr().out
    assert main(["egress", "test", str(log), "-c", str(less)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [each.partition(" (")[0] for each in shown if each.startswith("NOW")] == [
        "NOW denied     db.example.net port 5432",
        "NOW allowed    api.example.com port 9443",
        "NOW denied     10.1.2.3 port 5432",
    ]
    assert main(["egress", "test", str(log), "-c", str(less), "--json"]) == 1
    objects = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert objects[1] == {
        "host": "api.example.com", "port": 443, "was": "allowed", "allowed": True, "reason": "allowed", "rule": 0
    }  # fmt: skip


def test_a_file_that_is_no_log_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "enclave.toml"
    config.write_text(REST + RULES)
    assert main(["egress", "test", str(config), "-c", str(config)]) == 2
    assert main(["egress", "test", str(tmp_path / "none"), "-c", str(config)]) == 2
    assert "no line of an egress log" in capsys.readouterr().err
