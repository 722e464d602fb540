"""The boot journal: events with reasons and monotonic times, and nothing that could quote a secret."""

import pytest

from runtime.enclave.log import BootJournal, reason_of
from runtime.protocol.errors import Malformed
from runtime.settings import Problem, SettingsError

Record = tuple[str, str, dict[str, int | str | bytes]]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def journal() -> tuple[BootJournal, list[Record], Clock]:
    records: list[Record] = []
    clock = Clock()

    def record(level: str, event: str, /, **fields: int | str | bytes) -> None:
        records.append((level, event, fields))

    return BootJournal(record, clock=clock), records, clock


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
