"""Runs every check against every first process, ours and others', and judges ours: it passes all, and each is one that can be passed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.pid1 import (
    check_context,
    check_cost,
    check_end,
    check_reaping,
    check_signals,
    check_status,
    check_streams,
    check_terminal,
)
from tests.pid1.registry import CHECKS, FAILED, PASSED, Entry, note
from tests.pid1.subjects import NOT_INSTALLED, SUBJECTS, Subject, why_not

MODULES = (check_status, check_signals, check_reaping, check_end, check_streams, check_context, check_terminal, check_cost)
IS_CI = os.environ.get("CI") == "true"


def judge(entry: Entry, subject: Subject) -> str:
    """ "pass" or "FAIL" and why, or why the subject was not asked."""
    if reason := why_not(subject):
        return reason
    try:
        measured = entry.check(subject)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        return f"{FAILED}: {error}"
    return PASSED if measured is None else f"{PASSED} {measured}"


@pytest.mark.parametrize("entry", CHECKS, ids=lambda entry: entry.name)
def test_ours_passes_what_a_first_process_owes_to_its_command(entry: Entry) -> None:
    with ThreadPoolExecutor(max_workers=1 if entry.one_by_one else len(SUBJECTS)) as threads:
        verdicts = dict(zip(SUBJECTS, threads.map(lambda subject: judge(entry, subject), SUBJECTS), strict=True))
    sys.stdout.write(note(entry, {subject.name: verdict.partition(":")[0] for subject, verdict in verdicts.items()}))
    ours = {subject.name: verdict for subject, verdict in verdicts.items() if subject.is_ours}
    peers = {subject.name: verdict for subject, verdict in verdicts.items() if not subject.is_ours and not why_not(subject)}
    assert {name: verdict for name, verdict in ours.items() if not verdict.startswith(PASSED)} == {}
    if peers:
        assert any(verdict.startswith(PASSED) for verdict in peers.values()) is not entry.peers_miss, peers


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_first_process_can_be_asked_where_the_machine_is_meant_for_it(subject: Subject) -> None:
    reason = why_not(subject)
    if (IS_CI and reason == NOT_INSTALLED) or (os.geteuid() == 0 and reason != NOT_INSTALLED):
        assert reason == ""


def test_the_table_is_long_enough_and_names_each_check_once() -> None:
    assert len(CHECKS) >= 35
    assert len({entry.name for entry in CHECKS}) == len({entry.title for entry in CHECKS}) == len(CHECKS)
    assert sum(entry.peers_miss for entry in CHECKS) == 2
    assert {entry.check.__module__ for entry in CHECKS} == {module.__name__ for module in MODULES}
