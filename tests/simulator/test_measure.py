"""What measures the runtime: it starts a whole enclave, finds every process of it, and says what it found."""

import json
import os

import pytest

from runtime.simulator.footprint import Footprint, alone, grown
from runtime.simulator.measure import main

NAMES = ["PID 1", "api", "egress", "fork server", "ingress", "ingress"]


def test_a_whole_enclave_is_started_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--runs", "1", "--seconds", "0.1", "--settling", "0", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == (0 if all(budget["kept"] for budget in found["budgets"]) else 1)
    names = sorted(process["name"] for process in found["idle"])
    assert names == (NAMES if os.geteuid() == 0 else ["PID 1", *4 * ["worker"]])
    assert [process["name"] for process in found["only_process"]] == ["launcher", "PID 1"]
    assert found["pss_mib"] == pytest.approx(sum(process["pss_mib"] for process in found["idle"]), abs=1)
    assert found["pss_mib"] <= found["alone_mib"] + 0.1
    times = [found["seconds"][name]["median"] for name in ("first_record", "ready_without_provisioning", "ready")]
    assert sorted(times) == times
    assert times[0] > 0
    first = {package["package"]: package["modules"] for package in found["loaded_before_the_first_record"]}
    rest = {package["package"]: package["modules"] for package in found["loaded_in_all"]}
    assert {"trio", "runtime"} <= first.keys() <= rest.keys()
    assert first["runtime"] < rest["runtime"]


def test_the_table_has_a_line_for_every_process_and_budget(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", "1", "--seconds", "0.1", "--settling", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert sum("kept" in line or "MISSED" in line for line in lines) == 4
    assert sum(line.strip().startswith("PID 1 ") for line in lines) == 2
    assert any(line.strip().startswith("ready without provisioning ") for line in lines)


def process(pid: int, private: int, **files: int) -> Footprint:
    return Footprint(pid=pid, name="", pss=0, private=private, files=files, wake_ups={}, cpu_ns={})


def test_pages_of_a_file_that_several_have_are_counted_once() -> None:
    assert alone([process(1, 100, libc=50, own=7), process(2, 10, libc=60)]) == 100 + 10 + 60 + 7


def test_a_thread_that_is_new_counts_from_its_beginning_and_one_that_ended_not_at_all() -> None:
    assert grown({1: 10, 2: 5}, {1: 12, 3: 4}) == 2 + 4
