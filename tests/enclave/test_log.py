"""The boot journal: events with reasons and monotonic times, and nothing that could quote a secret."""

import subprocess
import sys
import time

import pytest

from runtime.enclave.log import LAST_KEPT, BootJournal, reason_of
from runtime.protocol.errors import Malformed
from runtime.protocol.link_values import ENTRIES_MAX
from runtime.settings import Problem, SettingsError

Record = tuple[str, str, dict[str, int | str | bytes]]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def journal(age: float = 0.0) -> tuple[BootJournal, list[Record], Clock]:
    records: list[Record] = []
    clock = Clock()

    def record(level: str, event: str, /, **fields: int | str | bytes) -> None:
        records.append((level, event, fields))

    return BootJournal(record, age=age, clock=clock), records, clock


def test_an_event_says_how_many_milliseconds_after_the_beginning_it_happened() -> None:
    boot, records, clock = journal()
    clock.now += 0.5
    boot.event("nsm.found", {"pcrs": 32})
    clock.now += 0.25
    boot.event("boot.failed", {"reason": "nsm_stalled"}, level="error")
    assert records == [
        ("info", "nsm.found", {"elapsed_ms": 500, "pcrs": 32}),
        ("error", "boot.failed", {"elapsed_ms": 750, "reason": "nsm_stalled"}),
    ]


def test_the_first_stage_counts_from_the_start_of_the_process_and_each_other_from_the_end_of_the_one_before() -> None:
    boot, records, clock = journal(age=0.25)
    boot.begin("load")
    boot.event("boot.started", {})
    clock.now += 0.5
    boot.begin("prepare")
    clock.now += 0.125
    boot.begin("config")
    boot.end()
    boot.end()
    assert [(event, fields.get("stage"), fields["elapsed_ms"], fields.get("took_ms")) for _, event, fields in records] == [
        ("boot.started", None, 250, None),
        ("stage.ended", "load", 750, 750),
        ("stage.ended", "prepare", 875, 125),
        ("stage.ended", "config", 875, 0),
    ]


def test_a_worker_that_names_the_journals_own_field_or_too_many_breaks_nothing() -> None:
    boot, records, clock = journal()
    clock.now += 1
    boot.event("traffic.http_request", {"elapsed_ms": -1, **{f"field{number}": number for number in range(31)}})
    assert len(records[0][2]) <= ENTRIES_MAX
    assert records[0][2]["elapsed_ms"] == 1000


def test_the_last_records_are_kept_as_lines_that_are_safe_on_a_console() -> None:
    boot, _, clock = journal()
    for number in range(100):
        clock.now += 0.001
        boot.event("step", {"number": number, "said": "\x1b[31m\n", "digest": b"\x00"})
    assert len(boot.last()) == LAST_KEPT
    assert boot.last()[-1].startswith("+100 ms step number=99 said='\\x1b[31m\\n' digest=00")
    assert all(line.isprintable() for line in boot.last())


def test_the_age_of_a_process_counts_from_before_its_first_instruction() -> None:
    program = "from runtime.enclave.process_age import process_age; import time; time.sleep(0.3); print(process_age())"
    began = time.monotonic()
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert 0.3 <= float(printed) <= time.monotonic() - began + 0.011


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Malformed("secret", "doc_syntax"), "doc_syntax"),
        (SettingsError(Problem(source="enclave.toml", line=1, key="secret", message="secret")), "config_invalid"),
        (FileNotFoundError(2, "secret"), "os_error"),
        (KeyError("secret"), "internal"),
    ],
)
def test_the_reason_of_an_error_is_a_word_and_never_its_text(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason
