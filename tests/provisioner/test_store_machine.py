"""The store, driven at random through two connections to one file: what may happen once happens once, whatever came before."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Values
from hypothesis.stateful import (
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from runtime.protocol.bundle import SecretValue
from runtime.protocol.digest import digest
from runtime.protocol.errors import Refused
from runtime.protocol.messages import Challenge, Hello, Outcome
from runtime.provisioner.store import NewLease, OpenChallenge, Store
from tests.support.prov import ENCLAVE_ID, INSTANCE, PARENT_KEY, record

START = 1_000_000.0
QUOTA = 2
LEASE_SECONDS = 200.0
OUTCOMES: tuple[Outcome, ...] = ("live", "failed")
SIDES = st.integers(0, 1)
KEYS = st.sampled_from([b"\x01" * 48, b"\x02" * 48])
HELLO = Hello(
    versions=(1,),
    suites=(1,),
    ticket=bytes(32),
    client_nonce=bytes(32),
    config_digest=bytes(48),
    boot_id=bytes(16),
    purpose="setup",
    runtime="enclave-runtime/1.4.0",
)


@dataclass(kw_only=True)
class Ticket:
    """What the model knows of a ticket."""

    value: bytes
    expires: float
    spent_by: bytes | None = None


@dataclass(kw_only=True)
class Issued:
    """What it knows of a challenge, and of its evidence once that was judged."""

    challenge_id: bytes
    ticket: Ticket
    expires: float
    is_consumed: bool = False
    opened: OpenChallenge | None = None


@dataclass(kw_only=True)
class Lease:
    """What it knows of a lease."""

    lease_id: bytes
    issued: float
    evidence_digest: bytes
    release: bytes
    state: str = "issued"

    def is_active(self, now: float) -> bool:
        return self.state != "failed" and self.issued + LEASE_SECONDS > now


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing at one of two connections, and the model says what must come of it."""

    tickets: Values[Ticket] = Values("tickets")
    challenges: Values[Issued] = Values("challenges")
    judged: Values[Issued] = Values("judged")
    granted: Values[Lease] = Values("granted")

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name) / "store.db"
        self.stores = (Store(path), Store(path))
        self.record = record(lease_quota=QUOTA)
        self.stores[0].put_record(self.record)
        self.now = START
        self.numbers = 0
        self.issued: list[Issued] = []
        self.leases: list[Lease] = []
        self.versions: list[int] = []
        self.consumed: set[bytes] = set()
        self.spent: dict[bytes, bytes] = {}

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.folder.cleanup()

    def number(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0, 150.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tickets, side=SIDES)
    def buy_a_ticket(self, side: int) -> Ticket:
        ticket = Ticket(value=self.number(32), expires=self.now + 600)
        self.stores[side].add_ticket(
            ticket.value, enclave_id=ENCLAVE_ID, instance_id=INSTANCE, parent=PARENT_KEY, expires=ticket.expires
        )
        return ticket

    @rule(target=challenges, ticket=tickets, side=SIDES)
    def open_a_challenge(self, ticket: Ticket, side: int) -> Issued | MultipleResults[Issued]:
        hello = replace(HELLO, ticket=ticket.value)
        challenge = Challenge(
            version=1, suite=1, challenge_id=self.number(16), server_nonce=bytes(32), lifetime=60, provisioner_id="p"
        )
        open_now = [each for each in self.issued if not each.is_consumed and each.expires > self.now]
        outstanding = [each for each in open_now if each.ticket is ticket]
        reason = None
        if ticket.expires <= self.now:
            reason = "ticket_expired"
        elif ticket.spent_by is not None:
            reason = "ticket_reused"
        elif len(outstanding) >= 4:
            reason = "rate_limited"
        if reason is not None:
            with pytest.raises(Refused) as refused:
                self.stores[side].add_challenge(hello, challenge, now=self.now)
            assert refused.value.reason == reason
            return multiple()
        self.stores[side].add_challenge(hello, challenge, now=self.now)
        issued = Issued(challenge_id=challenge.challenge_id, ticket=ticket, expires=self.now + 60)
        self.issued.append(issued)
        return issued

    @rule(target=judged, issued=challenges, side=SIDES)
    def consume_a_challenge(self, issued: Issued, side: int) -> Issued | MultipleResults[Issued]:
        if issued.is_consumed:
            with pytest.raises(Refused) as refused:
                self.stores[side].consume_challenge(issued.challenge_id)
            assert refused.value.reason == "challenge_used"
            return multiple()
        issued.opened = self.stores[side].consume_challenge(issued.challenge_id)
        assert issued.challenge_id not in self.consumed
        self.consumed.add(issued.challenge_id)
        issued.is_consumed = True
        assert issued.opened.ticket.digest == digest(issued.ticket.value)
        assert (issued.opened.expires, issued.opened.ticket.used_by) == (issued.expires, issued.ticket.spent_by)
        return issued

    @rule(target=judged, side=SIDES)
    def boot_an_enclave(self, side: int) -> Issued | MultipleResults[Issued]:
        """A ticket, a challenge and its evidence in one go, so that leases are common."""
        issued = self.open_a_challenge(self.buy_a_ticket(side), side)
        return self.consume_a_challenge(issued, side) if isinstance(issued, Issued) else issued

    @rule(issued=consumes(judged), side=SIDES)
    def refuse_the_evidence(self, issued: Issued, side: int) -> None:
        self.stores[side].refuse_challenge(issued.challenge_id)

    def new_lease(self) -> NewLease:
        return NewLease(
            lease_id=self.number(16),
            enclave_id=ENCLAVE_ID,
            evidence_digest=self.number(48),
            transcript=bytes(48),
            lease_key=SecretValue(bytes(32)),
            key_register=bytes(48),
            issued=self.now,
            expires=self.now + LEASE_SECONDS,
        )

    def grant(self, side: int, issued: Issued, lease: NewLease, key: bytes, make: Callable[[int], bytes]) -> bytes:
        assert issued.opened is not None
        return self.stores[side].grant(
            lease,
            challenge_id=issued.challenge_id,
            ticket=issued.opened.ticket,
            used_by=key,
            judged_by=self.record,
            make_release=make,
        )

    @rule(target=granted, issued=consumes(judged), key=KEYS, side=SIDES)
    def grant_a_lease(self, issued: Issued, key: bytes, side: int) -> Lease | MultipleResults[Lease]:
        lease = self.new_lease()
        made: list[int] = []

        def make(version: int) -> bytes:
            made.append(version)
            return b"release %d" % version

        reason = None
        if issued.ticket.spent_by is not None:
            reason = "ticket_reused"
        elif self.active() >= QUOTA:
            reason = "lease_quota"
        if reason is not None:
            with pytest.raises(Refused) as refused:
                self.grant(side, issued, lease, key, make)
            assert (refused.value.reason, made) == (reason, [])
            return multiple()
        release = self.grant(side, issued, lease, key, make)
        issued.ticket.spent_by = key
        assert self.spent.setdefault(issued.ticket.value, key) == key
        self.versions += made
        kept = Lease(lease_id=lease.lease_id, issued=self.now, evidence_digest=lease.evidence_digest, release=release)
        self.leases.append(kept)
        return kept

    @rule(issued=consumes(judged), key=KEYS, side=SIDES)
    def fail_while_the_release_is_made(self, issued: Issued, key: bytes, side: int) -> None:
        """A key that seals nothing: the transaction is undone, ticket and version stay as they were."""

        def make(version: int) -> bytes:
            raise Refused("hpke_key", f"no release {version}")

        with pytest.raises(Refused):
            self.grant(side, issued, self.new_lease(), key, make)
        self.stores[side].refuse_challenge(issued.challenge_id)

    @rule(lease=granted, outcome=st.sampled_from(OUTCOMES), is_proof=st.booleans(), side=SIDES)
    def confirm(self, lease: Lease, outcome: Outcome, is_proof: bool, side: int) -> None:
        reason = None
        if not is_proof:
            reason = "confirm_proof"
        elif lease.state not in ("issued", outcome):
            reason = "confirm_changed"
        elif lease.state == "issued" and self.now - lease.issued > 60:
            reason = "confirm_late"
        if reason is None:
            assert self.stores[side].confirm(lease.lease_id, outcome, lambda *_: is_proof, now=self.now) == ENCLAVE_ID
            lease.state = outcome
        else:
            with pytest.raises(Refused) as refused:
                self.stores[side].confirm(lease.lease_id, outcome, lambda *_: is_proof, now=self.now)
            assert refused.value.reason == reason

    @rule(lease=granted, side=SIDES)
    def ask_again(self, lease: Lease, side: int) -> None:
        found = self.stores[side].repeated_release(lease.evidence_digest, now=self.now)
        assert found == (lease.release if self.now - lease.issued <= 60 else None)

    def active(self) -> int:
        return sum(lease.is_active(self.now) for lease in self.leases)

    @invariant()
    def bundle_versions_strictly_increase(self) -> None:
        assert self.versions == sorted(set(self.versions))

    @invariant()
    def leases_never_exceed_the_quota(self) -> None:
        assert self.active() <= QUOTA
        with nullcontext() if self.active() < QUOTA else pytest.raises(Refused, match="lease_quota"):
            self.stores[1].require_free_lease(self.record, PARENT_KEY, now=self.now)

    @invariant()
    def a_ticket_is_spent_by_the_key_of_its_one_lease(self) -> None:
        for value, key in self.spent.items():
            assert self.stores[0].spent_by(digest(value)) == key
        assert len(self.spent) == len(self.leases)


def test_what_may_happen_once_happens_once_whatever_came_before() -> None:
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
