"""The boot journal: stages with outcomes, reasons and monotonic times, and nothing that could quote a secret."""

import pytest

from runtime.enclave.log import BootJournal
from runtime.protocol.errors import Malformed

Record = tuple[str, str, dict[str, int | str | bytes]]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def journal() -> tuple[BootJournal, list[Record], Clock]:
    records: list[Record] = []
    clock = Clock()
    return BootJournal(lambda level, event, **fields: records.append((level, event, fields)), clock=clock), records, clock


def test_a_stage_that_succeeds_says_how_long_it_took() -> None:
    boot, records, clock = journal()
    clock.now += 0.5
    with boot.stage("attest"):
        clock.now += 0.25
        boot.event("nsm.described", pcrs=32)
    assert records == [
        ("info", "attest.started", {"elapsed_ms": 500}),
        ("info", "nsm.described", {"elapsed_ms": 750, "pcrs": 32}),
        ("info", "attest.done", {"elapsed_ms": 750, "took_ms": 250}),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Malformed("secret", "doc_syntax"), "doc_syntax"),
        (KeyError("secret"), "KeyError"),
        (KeyboardInterrupt("secret"), "KeyboardInterrupt"),
    ],
)
def test_a_stage_that_fails_names_the_reason_and_never_the_text_of_the_error(error: BaseException, reason: str) -> None:
    boot, records, clock = journal()

    def provision() -> None:
        with boot.stage("provision"):
            clock.now += 1
            raise error

    with pytest.raises(type(error)):
        provision()
    assert records[1:] == [("error", "provision.failed", {"elapsed_ms": 1000, "reason": reason, "took_ms": 1000})]
    assert "secret" not in repr(records)
