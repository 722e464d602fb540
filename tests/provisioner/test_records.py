"""Records and the audit log as they are kept: what goes into the database comes out of it, and secrets stand in their own table."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.errors import Refused
from runtime.provisioner import audit
from runtime.provisioner.audit import SHOWN_DETAIL, AuditEntry
from runtime.provisioner.records import EnclaveRecord
from runtime.provisioner.store import Store
from runtime.verifier.reference import Measurement, ReferenceValues
from tests.protocol.test_bundle import SECRETS
from tests.support.prov import SECRET, record

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), max_size=3).map(tuple)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
MEASUREMENTS = st.builds(
    Measurement,
    name=NAMES,
    pcrs=st.dictionaries(st.integers(0, 31), st.binary(min_size=48, max_size=48), min_size=1, max_size=3),
    epoch=st.integers(0, 2**32 - 1),
    config_digest=st.none() | st.binary(min_size=48, max_size=48),
)
RECORDS = st.builds(
    EnclaveRecord,
    enclave_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    reference=st.lists(MEASUREMENTS, min_size=1, max_size=3, unique_by=lambda each: each.name).map(
        lambda found: ReferenceValues(measurements=tuple(found))
    ),
    status=st.sampled_from(["active", "revoked"]),
    parents=WORDS,
    names=WORDS,
    roles=WORDS,
    epoch_floor=st.integers(0, 2**32),
    suites=st.lists(st.sampled_from([1, 2, 3]), max_size=3).map(tuple),
    channel=st.sampled_from(["exporter", "none"]),
    host_parameters=st.dictionaries(NAMES, NAMES, max_size=3),
    instances=st.none() | WORDS,
    addresses=WORDS,
    strict_source_ip=st.booleans(),
    lease_seconds=st.integers(1, 10**9),
    renew_after_seconds=st.integers(1, 10**9),
    lease_quota=st.integers(0, 10**6),
    secrets=st.dictionaries(NAMES, SECRETS, max_size=3),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


@given(RECORDS)
def test_every_record_reads_back_from_its_text_with_its_secrets_beside_it(value: EnclaveRecord) -> None:
    assert EnclaveRecord.from_json(value.to_json(), dict(value.secrets)) == value
    assert "secrets" not in json.loads(value.to_json())


def test_a_record_and_its_secrets_read_back_from_the_database(store: Store, tmp_path: Path) -> None:
    secrets = {
        "A": Secret(delivery="env", value=SecretValue(SECRET)),
        "B": Secret(delivery="file", value=SecretValue(b"\0\xff"), file_name="b.bin", file_mode=0o440),
    }
    kept = record(secrets=secrets, host_parameters={"zone": "a"})
    store.put_record(kept)
    assert store.record(kept.enclave_id) == kept
    again = Store(tmp_path / "store.db")
    assert again.record(kept.enclave_id) == kept
    again.close()
    assert store.record("another") is None


def test_a_record_put_again_replaces_secrets_and_all(store: Store) -> None:
    store.put_record(record())
    changed = replace(record(), secrets={}, status="revoked", lease_quota=1)
    store.put_record(changed)
    assert store.record(changed.enclave_id) == changed
    with store.transaction() as db:
        assert db.execute("SELECT count(*) FROM secrets").fetchone()[0] == 0


def test_records_come_in_the_order_of_their_ids(store: Store) -> None:
    for name in ("b", "a", "c"):
        store.put_record(record(enclave_id=name))
    assert [each.enclave_id for each in store.records()] == ["a", "b", "c"]


def test_an_error_in_a_transaction_undoes_it_and_the_next_one_works(store: Store) -> None:
    store.put_record(record())

    def half_done() -> None:
        with store.transaction() as db:
            db.execute("DELETE FROM secrets")
            raise Refused("test", "half-way")

    with pytest.raises(Refused):
        half_done()
    assert store.record(record().enclave_id) == record()


def test_a_commit_that_fails_is_undone_and_the_next_transaction_works(store: Store) -> None:
    """As on a full disk: what makes this one fail is a reference that SQLite checks at the commit alone."""
    store.put_record(record())

    def fails_at_the_end() -> None:
        with store.transaction() as db:
            db.execute("PRAGMA defer_foreign_keys = ON")
            db.execute("INSERT INTO secrets VALUES ('nobody', 'A', 'env', x'00', NULL, 0)")

    with pytest.raises(sqlite3.IntegrityError):
        fails_at_the_end()
    assert store.record(record().enclave_id) == record()
    store.put_record(record(enclave_id="another"))


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database, and it is long enough to be seen as none" * 20)
    with pytest.raises(sqlite3.DatabaseError):
        Store(path)


# Audit


def test_entries_are_numbered_in_their_order_and_read_back(store: Store) -> None:
    entries = [
        AuditEntry(event="refused", enclave_id="a", reason="doc_chain", detail={"why": "no chain"}),
        AuditEntry(event="refused", enclave_id="b", reason="ticket_reused", alarm=True, detail={}),
        AuditEntry(event="ticket", detail={"address": "192.0.2.7"}),
    ]
    for seconds, entry in enumerate(entries):
        audit.record(store, entry, now=1000.5 + seconds)
    rows = list(audit.entries(store))
    assert [(row.sequence, row.time, row.entry) for row in rows] == [
        (number + 1, 1000.5 + number, entry) for number, entry in enumerate(entries)
    ]
    assert [row.sequence for row in audit.entries(store, after=1)] == [2, 3]
    assert [row.sequence for row in audit.entries(store, enclave_id="a")] == [1]
    assert [row.sequence for row in audit.entries(store, limit=1)] == [1]


def test_what_a_peer_sent_takes_bounded_room(store: Store) -> None:
    audit.record(store, AuditEntry(event="refused", detail={"why": "x" * 100_000, "address": "a"}), now=0.0)
    detail = next(audit.entries(store)).entry.detail
    assert detail == {"why": "x" * SHOWN_DETAIL, "address": "a"}
