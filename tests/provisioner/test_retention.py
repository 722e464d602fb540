"""What the audit log forgets: the old, and of what strangers can cause the surplus, in small steps and never what was released."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.provisioner import audit
from runtime.provisioner.audit import AuditEntry
from runtime.provisioner.config import AuditConfig
from runtime.provisioner.retention import ROWS_BETWEEN, STEP, prune
from runtime.provisioner.service import Failure, Service
from tests.support.prov import Bench, ground

DAY = 86400.0
LIMITS = AuditConfig(keep=10 * DAY, entries=1000)


def write(bench: Bench, event: str, *, count: int = 1, alarm: bool = False, days: float = 0.0) -> None:
    """Rows of some days ago."""
    for _ in range(count):
        entry = AuditEntry(event=event, alarm=alarm, detail={"why": "because"})
        audit.record(bench.store, entry, now=bench.clock() - days * DAY)


def events(bench: Bench) -> list[str]:
    return [entry.event for entry in bench.audited()]


def prune_all(bench: Bench) -> list[int]:
    """How many rows each step deleted, until one deletes none."""
    steps = []
    while deleted := prune(bench.store, LIMITS, now=bench.clock()):
        steps.append(deleted)
    return steps


def test_a_row_is_kept_for_its_time_and_no_longer(bench: Bench) -> None:
    write(bench, "released", days=10.1)
    write(bench, "refused", days=10.1)
    write(bench, "registry", alarm=True, days=10.1)
    write(bench, "released", days=9.9)
    write(bench, "refused")
    assert prune_all(bench) == [3]
    assert events(bench) == ["released", "refused"]


def test_many_old_rows_go_in_small_steps(bench: Bench) -> None:
    write(bench, "refused", count=2 * STEP + 10, days=11)
    write(bench, "ticket")
    assert prune_all(bench) == [STEP, STEP, 10]
    assert events(bench) == ["ticket"]


def test_a_flood_of_refusals_pushes_out_its_own_oldest_rows_and_nothing_that_matters(bench: Bench) -> None:
    write(bench, "released")
    write(bench, "refused", alarm=True)
    write(bench, "registry")
    write(bench, "hello")
    write(bench, "refused", count=LIMITS.entries + STEP)
    assert prune_all(bench) == [STEP, 1]
    kept = events(bench)
    assert kept[:3] == ["released", "refused", "registry"]
    assert kept[3:] == ["refused"] * LIMITS.entries


def test_numbers_are_never_given_twice(bench: Bench) -> None:
    write(bench, "refused", count=3, days=11)
    prune_all(bench)
    write(bench, "ticket")
    assert [row.sequence for row in audit.entries(bench.store)] == [4]


@pytest.mark.parametrize("event", ["ticket", "hello", "refused", "released"])
def test_no_step_looks_at_more_than_it_must(bench: Bench, event: str) -> None:
    """Whatever the log is full of, counting and choosing go by an index."""
    write(bench, event, count=10)
    with bench.store.transaction() as db:
        statements: list[str] = []
        db.set_trace_callback(statements.append)
    prune(bench.store, LIMITS, now=bench.clock())
    with bench.store.transaction() as db:
        db.set_trace_callback(None)
        asked = [text for text in statements if "audit" in text]
        plans = [row["detail"] for text in asked for row in db.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert len(asked) == 3
    assert [plan for plan in plans if "is_common" in plan] == ["SEARCH audit USING COVERING INDEX common_rows (is_common=?)"] * 2
    assert [plan for plan in plans if plan.startswith("SCAN")] == ["SCAN audit"]  # by number, up to its LIMIT
    assert not any("TEMP B-TREE" in plan for plan in plans)


def test_a_server_prunes_while_it_writes(bench: Bench) -> None:
    """A flood of requests that are refused leaves no more rows than allowed, and the old ones go with it."""
    service = Service(replace(bench.config, audit=LIMITS), ground().keys, bench.store, bench.roots, bench.clock)
    write(bench, "released", count=5, days=11)
    write(bench, "ticket", count=LIMITS.entries)
    for _ in range(2 * ROWS_BETWEEN):
        with pytest.raises(Failure):
            service.hello(b"junk", bench.caller())
    kept = events(bench)
    assert len(kept) == LIMITS.entries
    assert kept.count("refused") == 2 * ROWS_BETWEEN


def test_what_is_deleted_leaves_no_bytes_in_the_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    secret = next(iter(bench.record.secrets.values())).value.reveal()
    bench.put(secrets={})
    bench.close()
    files = [path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("store.db")]
    assert files
    assert not any(secret in content for content in files)
