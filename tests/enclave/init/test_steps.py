"""The table of steps: how each failure is classified, and that the pages repeat it."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.enclave.init.machine import common_steps, hostname_step
from runtime.enclave.init.mounts import customer_mounts, early_mounts, own_mounts
from runtime.enclave.init.names import names_step
from runtime.enclave.init.steps import BY_NAME, STEPS, Report, Step, StepFailed, take
from tests.support.pages import quoted, rows, section

RUNTIME = Path(__file__).parents[3] / "runtime"


def failing(error: Exception) -> Callable[[], bool]:
    def attempt() -> bool:
        raise error

    return attempt


each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step.name))


@each_step
def test_an_error_of_the_system_ends_the_boot_or_not_as_the_table_says(step: Step, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.EPERM, os.strerror(errno.EPERM), "/somewhere")
    report = take([(step.name, failing(error)), ("console", lambda: True)])
    (failure,) = report.failures
    assert (failure.step, failure.reason, failure.errno) == (step.name, step.reasons[0], "EPERM")
    assert (report.fatal is failure) == failure.is_fatal == (step.severity == "fatal")
    assert report.taken == (() if step.severity == "fatal" else ("console",)), "nothing follows a fatal failure"
    assert f"/somewhere' [{step.reasons[0]}]\n" in capsys.readouterr().err


@each_step
def test_a_step_has_no_reasons_but_those_of_the_table(step: Step) -> None:
    for reason in step.reasons:
        (failure,) = take([(step.name, failing(StepFailed(reason, "why")))]).failures
        assert (failure.reason, failure.errno) == (reason, "")
    with pytest.raises(AssertionError):
        take([(step.name, failing(StepFailed("another", "why")))])


def test_names_and_reasons_are_words_of_their_own() -> None:
    reasons = [reason for step in STEPS for reason in step.reasons]
    assert len(set(reasons)) == len(reasons)
    assert len(BY_NAME) == len(STEPS)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", word) for word in [*reasons, *BY_NAME])


def test_what_was_there_already_is_told_from_what_was_done() -> None:
    report = take([("proc", lambda: False), ("dev", lambda: True)])
    assert (report.taken, report.left, report.failures) == (("dev",), ("proc",), ())


def test_steps_go_on_where_a_report_ends_and_not_after_a_fatal_failure() -> None:
    first = take([("proc", lambda: True), ("modules", failing(OSError(errno.ENOEXEC, "no")))])
    second = take([("sys", lambda: True)], first)
    assert (second.taken, second.failures) == (("proc", "sys"), first.failures)
    broken = take([("ramdisk", failing(StepFailed("ramdisk_incomplete", "cut")))], second)
    assert take([("sys", failing(AssertionError()))], broken) == broken
    assert Report().fatal is None


def test_an_error_without_a_number_is_told_all_the_same() -> None:
    (failure,) = take([("loopback", failing(TimeoutError("timed out")))]).failures
    assert (failure.reason, failure.errno, failure.detail) == ("loopback_down", "", "timed out")


def test_every_step_that_is_taken_stands_in_the_table_in_its_place() -> None:
    early = [name for name, _ in early_mounts()] + ["console", "modules", "heartbeat", "ramdisk"]
    later = [name for name, _ in own_mounts()] + ["device"]
    later += [name for name, _ in (*customer_mounts(Path("/rootfs")), *common_steps())]
    last = ["low_ports", "subreaper", hostname_step("a")[0], names_step(Path("/rootfs"))[0]]
    assert [*early, *later, *last] == [step.name for step in STEPS]


def test_the_page_has_the_table() -> None:
    table = list(rows(section(RUNTIME / "enclave" / "README.md", "### First steps")))
    assert table == [
        [f"`{step.name}`", step.does, step.severity, " ".join(f"`{reason}`" for reason in step.reasons)] for step in STEPS
    ]


def test_every_fatal_reason_stands_among_those_of_a_failed_boot() -> None:
    fatal = {reason for step in STEPS if step.severity == "fatal" for reason in step.reasons}
    assert fatal - quoted(section(RUNTIME / "protocol" / "README.md", "### 1.6 Reasons and codes")) == set()
