"""The audit log: what was asked, by whom, what became of it and precisely why. Peers learn a code; the reason stays here."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.provisioner.store import Store

SHOWN_DETAIL = 300
_COMMON = frozenset({"ticket", "hello", "refused", "repeated", "confirmed"})
"""Of these whoever reaches the server, or an enclave that has its release, can cause as many as they like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """`event` is ticket, hello, released, repeated, refused, confirmed or registry; `reason` one of protocol/README.md 1.6.

    `alarm` marks what an honest enclave never does. `detail` holds identifiers and sentences, never a secret.
    """

    event: str
    enclave_id: str | None = None
    reason: str | None = None
    alarm: bool = False
    detail: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """An entry as it was kept: its number and its time in unix seconds."""

    sequence: int
    time: float
    entry: AuditEntry


def record(store: Store, entry: AuditEntry, *, now: float) -> None:
    """Appends an entry."""
    detail = json.dumps({key: value[:SHOWN_DETAIL] for key, value in entry.detail.items()}, sort_keys=True)
    with store.transaction() as db:
        db.execute(
            "INSERT INTO audit (time, event, enclave_id, reason, alarm, detail, is_common) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, entry.event, entry.enclave_id, entry.reason, entry.alarm, detail, not entry.alarm and entry.event in _COMMON),
        )


def entries(store: Store, *, after: int = 0, enclave_id: str | None = None, limit: int = 1000) -> Iterator[AuditRow]:
    """Entries with a number above `after`, oldest first."""
    with store.transaction() as db:
        rows = db.execute(
            "SELECT * FROM audit WHERE sequence > ? AND (? IS NULL OR enclave_id = ?) ORDER BY sequence LIMIT ?",
            (after, enclave_id, enclave_id, limit),
        ).fetchall()
    for row in rows:
        entry = AuditEntry(
            event=row["event"],
            enclave_id=row["enclave_id"],
            reason=row["reason"],
            alarm=bool(row["alarm"]),
            detail=json.loads(row["detail"]),
        )
        yield AuditRow(sequence=row["sequence"], time=row["time"], entry=entry)
