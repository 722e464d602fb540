"""Databases of older versions are opened as they are, and what they lack is added once."""

import sqlite3
from pathlib import Path

import pytest

from runtime.provisioner import audit
from runtime.provisioner.audit import AuditEntry
from runtime.provisioner.schema import open_database
from runtime.provisioner.store import Store
from tests.provisioner.refusals import refuse_evidence
from tests.support.prov import ENCLAVE_ID, Bench

BEFORE_PARENTS = """
CREATE TABLE tickets (
    digest BLOB PRIMARY KEY, enclave_id TEXT NOT NULL, instance_id TEXT NOT NULL, expires REAL NOT NULL,
    used_by BLOB) STRICT;
CREATE TABLE leases (
    lease_id BLOB PRIMARY KEY, enclave_id TEXT NOT NULL, evidence_digest BLOB NOT NULL UNIQUE, release BLOB NOT NULL,
    transcript BLOB NOT NULL, lease_key BLOB NOT NULL, key_register BLOB NOT NULL,
    issued REAL NOT NULL, expires REAL NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, event TEXT NOT NULL, enclave_id TEXT,
    reason TEXT, alarm INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
INSERT INTO audit VALUES (1, 1.0, 'refused', NULL, 'malformed', 0, '{}'), (2, 2.0, 'refused', NULL, 'ticket_reused', 1, '{}'),
    (3, 3.0, 'released', NULL, NULL, 0, '{}');
INSERT INTO tickets VALUES (x'01', 'payments-prod', 'i-0', 9e9, NULL);
INSERT INTO leases VALUES (x'02', 'payments-prod', x'03', x'', x'', x'', x'', 1.0, 9e9, 'live');
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.executescript(BEFORE_PARENTS)
    connection.close()
    return path


def test_an_old_database_is_opened_and_changed_once(old: Path) -> None:
    for _ in range(2):
        connection = open_database(old)
        assert [tuple(row) for row in connection.execute("SELECT lease_id, state, parent FROM leases")] == [(b"\x02", "live", "")]
        connection.execute("INSERT INTO tickets VALUES (randomblob(48), 'a', 'i-0', 9e9, NULL, 'key')")
        connection.close()
    connection = open_database(old)
    assert [row[0] for row in connection.execute("SELECT parent FROM tickets")] == ["key", "key"]
    connection.close()


def test_a_ticket_that_no_parent_is_known_of_is_forgotten(old: Path) -> None:
    """Its enclave asks for another one."""
    store = Store(old)
    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM tickets").fetchone()[0] == 0
    store.close()


def test_a_lease_that_no_parent_is_known_of_counts_for_the_quota(old: Path) -> None:
    bench = Bench(old.parent, lease_quota=1)
    try:
        refuse_evidence(bench.boot().attempt().ready(), code="busy", reason="lease_quota")
        assert bench.leases() == [(ENCLAVE_ID, "live")]
    finally:
        bench.close()


def test_old_rows_of_the_audit_log_are_kept_and_told_apart(old: Path) -> None:
    store = Store(old)
    audit.record(store, AuditEntry(event="hello", detail={}), now=4.0)
    assert [row.entry.event for row in audit.entries(store)] == ["refused", "refused", "released", "hello"]
    with store.transaction() as db:
        assert [row[0] for row in db.execute("SELECT is_common FROM audit ORDER BY sequence")] == [1, 0, 0, 1]
    store.close()
