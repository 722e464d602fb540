"""The provisioner's memory, in SQLite. Each public method is one transaction, so that two processes may serve one database.

What must happen once happens here: a challenge is consumed, a ticket is spent, a lease is written. The methods block for a disk
write; the server calls them in a worker thread.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.digest import digest
from runtime.protocol.errors import Refused
from runtime.protocol.handshake import NEXT_STATES, ChallengeState
from runtime.protocol.messages import Challenge, Hello
from runtime.provisioner.quota import require_free_lease
from runtime.provisioner.records import EnclaveRecord
from runtime.provisioner.schema import open_database

CHALLENGES_PER_TICKET = 4
CONFIRM_SECONDS = 60.0
REPEAT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a parent bought. Only the digest of the ticket is kept; `used_by` is `H(hpke_public_key)` once it was spent.

    `parent` is the digest (hex) of the public key that bought it.
    """

    digest: bytes
    enclave_id: str
    instance_id: str
    parent: str
    expires: float
    used_by: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChallenge:
    """A challenge that was just consumed: the one place where its evidence may be judged."""

    hello: Hello
    challenge: Challenge
    expires: float
    ticket: Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLease:
    """What is written when a release is granted. `key_register` is PCR 17, which a renewal must show unchanged.

    `renews` is the lease whose place it takes. It is live at once then: its evidence has shown that the enclave is.
    """

    lease_id: bytes
    enclave_id: str
    evidence_digest: bytes
    transcript: bytes
    lease_key: SecretValue
    key_register: bytes
    issued: float
    expires: float
    renews: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease that was released before, and may be renewed."""

    lease_key: SecretValue
    key_register: bytes


class Store:
    """One database. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._connection = open_database(path)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: it waits for other processes' ones and is undone by any error."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # some errors of SQLite end the transaction themselves
                    self._connection.execute("ROLLBACK")
                raise

    # Records

    def put_record(self, record: EnclaveRecord, *, is_new: bool = False) -> bool:
        """Writes a record with its secrets, new or in place of the one with its id. The bundle version goes on counting.

        With `is_new` nothing is written over a record that is there, and the answer is False.
        """
        with self.transaction() as db:
            if is_new and _record(db, record.enclave_id) is not None:
                return False
            db.execute(
                "INSERT INTO records (enclave_id, data) VALUES (?, ?) ON CONFLICT (enclave_id) DO UPDATE SET data = excluded.data",
                (record.enclave_id, record.to_json()),
            )
            db.execute("DELETE FROM secrets WHERE enclave_id = ?", (record.enclave_id,))
            db.executemany(
                "INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (record.enclave_id, name, secret.delivery, secret.value.reveal(), secret.file_name, secret.file_mode)
                    for name, secret in record.secrets.items()
                ],
            )
            return True

    def revoke(self, enclave_id: str) -> bool:
        """Marks a record as revoked and changes nothing else of it, whoever else writes; False when there is none."""
        with self.transaction() as db:
            record = _record(db, enclave_id)
            if record is None:
                return False
            db.execute(
                "UPDATE records SET data = ? WHERE enclave_id = ?", (replace(record, status="revoked").to_json(), enclave_id)
            )
            return True

    def record(self, enclave_id: str) -> EnclaveRecord | None:
        """The record with this id."""
        with self.transaction() as db:
            return _record(db, enclave_id)

    def records(self) -> list[EnclaveRecord]:
        """All records, by id."""
        with self.transaction() as db:
            ids = [row["enclave_id"] for row in db.execute("SELECT enclave_id FROM records ORDER BY enclave_id")]
            return [record for enclave_id in ids if (record := _record(db, enclave_id)) is not None]

    # Tickets and challenges

    def add_ticket(self, ticket: bytes, *, enclave_id: str, instance_id: str, parent: str, expires: float) -> None:
        """Remembers a ticket by its digest."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO tickets (digest, enclave_id, instance_id, parent, expires) VALUES (?, ?, ?, ?, ?)",
                (digest(ticket), enclave_id, instance_id, parent, expires),
            )

    def add_challenge(self, hello: Hello, challenge: Challenge, *, now: float) -> Ticket:
        """Opens a challenge on the hello's ticket. Raises `Refused`: ticket_unknown, ticket_expired, ticket_reused, rate_limited."""
        with self.transaction() as db:
            ticket = _live_ticket(db, digest(hello.ticket), now)
            if ticket.used_by is not None:
                raise Refused("ticket_reused", "hello with a spent ticket")
            outstanding = db.execute(
                "SELECT count(*) FROM challenges WHERE ticket = ? AND state = ? AND expires > ?",
                (ticket.digest, ChallengeState.ISSUED.value, now),
            ).fetchone()[0]
            if outstanding >= CHALLENGES_PER_TICKET:
                raise Refused("rate_limited", f"{outstanding} challenges outstanding on one ticket")
            db.execute(
                "INSERT INTO challenges VALUES (?, ?, ?, ?, ?, ?)",
                (
                    challenge.challenge_id,
                    ticket.digest,
                    hello.encode(),
                    challenge.encode(),
                    now + challenge.lifetime,
                    ChallengeState.ISSUED.value,
                ),
            )
            return ticket

    def ticket_of(self, ticket: bytes, *, now: float) -> Ticket:
        """The ticket, unexpired. Raises `Refused`: ticket_unknown, ticket_expired."""
        with self.transaction() as db:
            return _live_ticket(db, digest(ticket), now)

    def consume_challenge(self, challenge_id: bytes) -> OpenChallenge:
        """Takes a challenge out of circulation, for exactly one caller in the world. Raises `Refused`: challenge_unknown, challenge_used.

        Whether it had expired is for the caller to judge; it is consumed all the same.
        """
        with self.transaction() as db:
            moved = _move(db, challenge_id, ChallengeState.ISSUED, ChallengeState.CONSUMED)
            row = db.execute(
                "SELECT c.hello, c.challenge, c.expires AS challenge_expires, t.* FROM challenges c JOIN tickets t"
                " ON t.digest = c.ticket WHERE c.challenge_id = ?",
                (challenge_id,),
            ).fetchone()
            if row is None:
                raise Refused("challenge_unknown", "evidence for no challenge of ours")
            if not moved:
                raise Refused("challenge_used", "evidence for a challenge that was consumed before")
            return OpenChallenge(
                hello=Hello.decode(row["hello"]),
                challenge=Challenge.decode(row["challenge"]),
                expires=row["challenge_expires"],
                ticket=_ticket(row),
            )

    def refuse_challenge(self, challenge_id: bytes) -> None:
        """Records that the evidence on a consumed challenge was refused."""
        with self.transaction() as db:
            _move(db, challenge_id, ChallengeState.CONSUMED, ChallengeState.REFUSED)

    # Leases

    def repeated_release(self, evidence_digest: bytes, *, now: float) -> bytes | None:
        """The release that a byte-identical evidence message earned within the last 60 s. Raises `Refused`: record_inactive."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT release, enclave_id FROM leases WHERE evidence_digest = ? AND issued >= ?",
                (evidence_digest, now - REPEAT_SECONDS),
            ).fetchone()
            if row is None:
                return None
            _active_record(db, row["enclave_id"])
            return bytes(row["release"])

    def held_lease(self, lease_id: bytes, enclave_id: str, *, now: float) -> HeldLease:
        """Raises `Refused` with lease_gone for one that is not this enclave's, has ended or was given back."""
        with self.transaction() as db:
            return _held_lease(db, lease_id, enclave_id, now)

    def grant(
        self,
        lease: NewLease,
        *,
        challenge_id: bytes,
        ticket: Ticket,
        used_by: bytes,
        judged_by: EnclaveRecord,
        make_release: Callable[[int], bytes],
    ) -> bytes:
        """Spends the ticket and writes the lease in one transaction; gives the release that `make_release(bundle_version)` made.

        The record is read again in it: nothing is released by one that was revoked or changed while the evidence was judged.
        Raises `Refused`: record_inactive, record_changed, ticket_reused (spent in the meantime), lease_quota, lease_gone.
        """
        with self.transaction() as db:
            record = _active_record(db, lease.enclave_id)
            if record != judged_by:
                raise Refused("record_changed", "the record was changed while the evidence was judged")
            spent = db.execute(
                "UPDATE tickets SET used_by = ? WHERE digest = ? AND used_by IS NULL", (used_by, ticket.digest)
            ).rowcount
            if not spent:
                raise Refused("ticket_reused", "the ticket was spent by another evidence")
            renewed = None
            if lease.renews is not None:
                renewed = _held_lease(db, lease.renews, lease.enclave_id, lease.issued).key_register
            require_free_lease(db, record, ticket.parent, now=lease.issued, renewed=renewed)
            db.execute("UPDATE leases SET state = 'renewed' WHERE key_register = ? AND state != 'failed'", (renewed,))
            version = db.execute(
                "UPDATE records SET bundle_version = bundle_version + 1 WHERE enclave_id = ? RETURNING bundle_version",
                (lease.enclave_id,),
            ).fetchone()[0]
            release = make_release(version)
            db.execute(
                "INSERT INTO leases (lease_id, enclave_id, evidence_digest, release, transcript, lease_key, key_register, issued,"
                " expires, state, parent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    lease.lease_id,
                    lease.enclave_id,
                    lease.evidence_digest,
                    release,
                    lease.transcript,
                    lease.lease_key.reveal(),
                    lease.key_register,
                    lease.issued,
                    lease.expires,
                    "issued" if lease.renews is None else "live",
                    ticket.parent,
                ),
            )
            _move(db, challenge_id, ChallengeState.CONSUMED, ChallengeState.RELEASED)
            return release

    def spent_by(self, ticket_digest: bytes) -> bytes | None:
        """`H(hpke_public_key)` of the evidence that spent a ticket."""
        with self.transaction() as db:
            row = db.execute("SELECT used_by FROM tickets WHERE digest = ?", (ticket_digest,)).fetchone()
            return None if row is None else row["used_by"]

    def require_free_lease(self, record: EnclaveRecord, parent: str, *, now: float, renewed: bytes | None = None) -> None:
        """Raises `Refused` with lease_quota when no lease is free for an enclave of this parent's (runtime/provisioner/quota.py)."""
        with self.transaction() as db:
            require_free_lease(db, record, parent, now=now, renewed=renewed)

    def confirm(self, lease_id: bytes, outcome: str, is_proof: Callable[[bytes, bytes], bool], *, now: float) -> str:
        """Marks an issued lease live or failed and gives its enclave_id. `is_proof(lease_key, transcript)` judges the message.

        A lease that nobody confirms stays issued, and counts, until its end. A repeat with the same outcome changes nothing.
        Raises `Refused`: lease_unknown, confirm_proof, confirm_late, confirm_changed.
        """
        with self.transaction() as db:
            row = db.execute("SELECT * FROM leases WHERE lease_id = ?", (lease_id,)).fetchone()
            if row is None:
                raise Refused("lease_unknown", "confirm for no lease of ours")
            if not is_proof(row["lease_key"], row["transcript"]):
                raise Refused("confirm_proof", "confirm without knowledge of the lease key")
            if row["state"] not in ("issued", outcome):
                raise Refused("confirm_changed", f"confirm {outcome} after {row['state']}")
            if row["state"] == "issued" and now - row["issued"] > CONFIRM_SECONDS:
                raise Refused("confirm_late", "confirm more than a minute after the release")
            db.execute("UPDATE leases SET state = ? WHERE lease_id = ?", (outcome, lease_id))
            return str(row["enclave_id"])

    def purge(self, *, now: float, keep: float = 3600.0) -> None:
        """Forgets tickets, challenges and leases that ended `keep` seconds ago, and releases that nobody can ask for again."""
        with self.transaction() as db:
            db.execute("UPDATE leases SET release = x'' WHERE issued < ? AND release != x''", (now - REPEAT_SECONDS,))
            db.execute("DELETE FROM leases WHERE expires < ?", (now - keep,))
            db.execute("DELETE FROM challenges WHERE expires < ?", (now - keep,))
            db.execute("DELETE FROM tickets WHERE expires < ?", (now - keep,))


def _record(db: sqlite3.Connection, enclave_id: str) -> EnclaveRecord | None:
    row = db.execute("SELECT data FROM records WHERE enclave_id = ?", (enclave_id,)).fetchone()
    if row is None:
        return None
    secrets = {
        secret["name"]: Secret(
            delivery=secret["delivery"],
            value=SecretValue(secret["value"]),
            file_name=secret["file_name"],
            file_mode=secret["file_mode"],
        )
        for secret in db.execute("SELECT * FROM secrets WHERE enclave_id = ? ORDER BY name", (enclave_id,))
    }
    return EnclaveRecord.from_json(row["data"], secrets)


def _active_record(db: sqlite3.Connection, enclave_id: str) -> EnclaveRecord:
    record = _record(db, enclave_id)
    if record is None or record.status != "active":
        raise Refused("record_inactive", "the record was revoked in the meantime")
    return record


def _held_lease(db: sqlite3.Connection, lease_id: bytes, enclave_id: str, now: float) -> HeldLease:
    row = db.execute(
        "SELECT lease_key, key_register FROM leases WHERE lease_id = ? AND enclave_id = ? AND state != 'failed' AND expires > ?",
        (lease_id, enclave_id, now),
    ).fetchone()
    if row is None:
        raise Refused("lease_gone", "a renewal of a lease that this enclave does not hold")
    return HeldLease(lease_key=SecretValue(row["lease_key"]), key_register=row["key_register"])


def _ticket(row: sqlite3.Row) -> Ticket:
    return Ticket(
        digest=row["digest"],
        enclave_id=row["enclave_id"],
        instance_id=row["instance_id"],
        parent=row["parent"],
        expires=row["expires"],
        used_by=row["used_by"],
    )


def _live_ticket(db: sqlite3.Connection, ticket_digest: bytes, now: float) -> Ticket:
    row = db.execute("SELECT * FROM tickets WHERE digest = ?", (ticket_digest,)).fetchone()
    if row is None:
        raise Refused("ticket_unknown", "a ticket that we did not issue")
    if row["expires"] <= now:
        raise Refused("ticket_expired", "a ticket past its time")
    return _ticket(row)


def _move(db: sqlite3.Connection, challenge_id: bytes, state: ChallengeState, following: ChallengeState) -> bool:
    assert following in NEXT_STATES[state]
    moved = db.execute(
        "UPDATE challenges SET state = ? WHERE challenge_id = ? AND state = ?", (following.value, challenge_id, state.value)
    )
    return moved.rowcount == 1
