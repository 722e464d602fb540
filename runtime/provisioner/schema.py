"""The provisioner's tables, and how a connection to them is opened."""

import sqlite3
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    enclave_id TEXT PRIMARY KEY, data TEXT NOT NULL, bundle_version INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS secrets (
    enclave_id TEXT NOT NULL REFERENCES records ON DELETE CASCADE, name TEXT NOT NULL,
    delivery TEXT NOT NULL, value BLOB NOT NULL, file_name TEXT, file_mode INTEGER NOT NULL,
    PRIMARY KEY (enclave_id, name)) STRICT;
CREATE TABLE IF NOT EXISTS tickets (
    digest BLOB PRIMARY KEY, enclave_id TEXT NOT NULL, instance_id TEXT NOT NULL, expires REAL NOT NULL,
    used_by BLOB, parent TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS challenges (
    challenge_id BLOB PRIMARY KEY, ticket BLOB NOT NULL REFERENCES tickets ON DELETE CASCADE,
    hello BLOB NOT NULL, challenge BLOB NOT NULL, expires REAL NOT NULL, state TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS challenges_of_a_ticket ON challenges (ticket, state);
CREATE TABLE IF NOT EXISTS leases (
    lease_id BLOB PRIMARY KEY, enclave_id TEXT NOT NULL, evidence_digest BLOB NOT NULL UNIQUE, release BLOB NOT NULL,
    transcript BLOB NOT NULL, lease_key BLOB NOT NULL, key_register BLOB NOT NULL,
    issued REAL NOT NULL, expires REAL NOT NULL, state TEXT NOT NULL, parent TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS leases_of_an_enclave ON leases (enclave_id, state);
CREATE TABLE IF NOT EXISTS audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, event TEXT NOT NULL, enclave_id TEXT,
    reason TEXT, alarm INTEGER NOT NULL, detail TEXT NOT NULL, is_common INTEGER NOT NULL) STRICT;
"""
_ADDED_COLUMNS = (
    # A ticket of before is good for minutes: its enclave asks for another. A lease of before counts for no parent and for the quota.
    ("tickets", "parent", "TEXT NOT NULL DEFAULT ''", "DELETE FROM tickets"),
    ("leases", "parent", "TEXT NOT NULL DEFAULT ''", None),
    ("audit", "is_common", "INTEGER NOT NULL DEFAULT 0", "UPDATE audit SET is_common = 1 WHERE alarm = 0 AND event = 'refused'"),
)
"""What databases of older versions lack: (table, column, its definition, what else to do)."""
_LATER = "CREATE INDEX IF NOT EXISTS common_rows ON audit (is_common)"


def open_database(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions are begun by name. Several processes may share the file.

    The file is readable by its owner alone, for it holds secrets. Raises `sqlite3.Error` or `OSError`.
    """
    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # a secret that was replaced does not stay in a free page
        connection.executescript(_SCHEMA)
        _add_columns(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, column, definition, also in _ADDED_COLUMNS:
            if connection.execute("SELECT 1 FROM pragma_table_xinfo(?) WHERE name = ?", (table, column)).fetchone() is None:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}")
                if also is not None:
                    connection.execute(also)
        connection.execute(_LATER)
