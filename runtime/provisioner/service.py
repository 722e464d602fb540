"""The four requests of PROV/1 at the provisioner, as methods from bytes to bytes. They block; the server calls them in a thread.

A request that fails raises `Failure` with the code that the peer may know; the precise reason goes to the audit log and nowhere else.
"""

import hmac
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.net.buckets import TokenBuckets, client_network
from runtime.protocol.bundle import Bundle, DeliveredIdentity, SecretValue
from runtime.protocol.digest import digest
from runtime.protocol.errors import ProtocolError, Refused
from runtime.protocol.handshake import choose, confirm_proof, make_release
from runtime.protocol.measurements import KEY_PCR
from runtime.protocol.messages import Challenge, Code, Confirm, Evidence, Hello, TicketReply, TicketRequest
from runtime.protocol.release import ReleaseHeader
from runtime.protocol.sealing import Suite
from runtime.provisioner import audit
from runtime.provisioner.audit import AuditEntry
from runtime.provisioner.config import ProvisionerConfig
from runtime.provisioner.evidence import Judged, admit, judge, key_id, require_listed, require_unexpired
from runtime.provisioner.keys import ProvisionerKeys
from runtime.provisioner.retention import ROWS_BETWEEN, prune
from runtime.provisioner.store import NewLease, OpenChallenge, Store

_GONE = frozenset(
    {
        "ticket_unknown",
        "ticket_expired",
        "ticket_reused",
        "challenge_unknown",
        "challenge_expired",
        "challenge_used",
        "record_changed",
        "lease_unknown",
        "confirm_late",
    }
)
_FLOOD_ROWS = 10
_FLOOD_ROWS_PER_SECOND = 0.1
_RETRY_SECONDS = {"rate_limited": 5, "lease_quota": 60}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the transport knows of a request: source address, a random id for both logs, the digest (hex) of the client
    certificate's public key if one was shown, and the TLS exporter (label EXPORTER-prov-1, 32 bytes) of its connection."""

    address: str
    request_id: str
    key_digest: str | None
    exporter: Callable[[bytes], bytes]


class Failure(Exception):
    """A request that ends with an error. `retry_after` is in seconds."""

    def __init__(self, code: Code, *, retry_after: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after = retry_after


def external(reason: str) -> Failure:
    """What a peer may know of a refusal. Unknown, expired and used look the same from outside."""
    if reason in _GONE:
        return Failure("challenge_gone")
    if reason in _RETRY_SECONDS:
        return Failure("busy", retry_after=_RETRY_SECONDS[reason])
    match reason:
        case "unsupported_version":
            return Failure("unsupported_version")
        case "record_inactive":
            return Failure("revoked")
        case "malformed":
            return Failure("malformed")
        case _:
            return Failure("refused")


class Service:
    """One provisioner. `clock` gives unix seconds."""

    def __init__(
        self,
        config: ProvisionerConfig,
        keys: ProvisionerKeys,
        store: Store,
        roots: Sequence[x509.Certificate],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._keys = keys
        self._store = store
        self._roots = roots
        self._clock = clock
        limits = config.limits
        self._buckets_lock = threading.Lock()  # the requests run in threads, and a bucket is read before it is written
        self._enclaves = TokenBuckets(rate=limits.requests_per_enclave, burst=limits.burst)
        self._addresses = TokenBuckets(rate=limits.requests_per_address, burst=limits.burst)
        self._rows = count(1)
        self._audited_floods = TokenBuckets(rate=_FLOOD_ROWS_PER_SECOND, burst=_FLOOD_ROWS)

    def ticket(self, body: bytes, caller: Caller) -> bytes:
        """A ticket for a parent whose client certificate the record names."""
        with self._audited(caller) as entry:
            now = self._clock()
            self._limit(self._addresses, client_network(caller.address), now)
            request = TicketRequest.decode(body)
            entry |= {
                "enclave_id": request.enclave_id,
                "instance_id": request.instance_id,
                "parent_key": caller.key_digest or "none",
            }
            record = self._store.record(request.enclave_id)
            if record is None or caller.key_digest is None or caller.key_digest not in record.parents:
                raise Refused("parent_unknown", "no record names this parent's key")
            self._limit(self._enclaves, request.enclave_id, now)  # after the key: a stranger must not empty an enclave's bucket
            if record.status != "active":
                raise Refused("record_inactive", "the record is revoked")
            require_listed(record, request.instance_id)
            self._store.purge(now=now)
            ticket = secrets.token_bytes(32)
            lifetime = int(self._config.ticket_lifetime)
            self._store.add_ticket(
                ticket,
                enclave_id=record.enclave_id,
                instance_id=request.instance_id,
                parent=caller.key_digest,
                expires=now + lifetime,
            )
            self._note("ticket", entry)
            return TicketReply(ticket=ticket, lifetime=lifetime).encode()

    def hello(self, body: bytes, caller: Caller) -> bytes:
        """A challenge on a ticket."""
        with self._audited(caller) as entry:
            now = self._clock()
            self._limit(self._addresses, client_network(caller.address), now)
            hello = Hello.decode(body)
            ticket = self._store.ticket_of(hello.ticket, now=now)
            entry |= {"enclave_id": ticket.enclave_id, "boot_id": hello.boot_id.hex(), "runtime": hello.runtime}
            self._limit(self._enclaves, ticket.enclave_id, now)
            record = admit(ticket, self._store.record(ticket.enclave_id))
            version, suite = choose(hello, suites=[Suite(number) for number in record.suites])
            challenge = Challenge(
                version=version,
                suite=suite,
                challenge_id=secrets.token_bytes(16),
                server_nonce=secrets.token_bytes(32),
                lifetime=int(self._config.challenge_lifetime),
                provisioner_id=self._config.id,
            )
            self._store.add_challenge(hello, challenge, now=now)
            self._note("hello", entry | {"challenge_id": challenge.challenge_id.hex(), "suite": suite.name})
            return challenge.encode()

    def evidence(self, body: bytes, caller: Caller) -> bytes:
        """A release for evidence that holds (protocol/README.md section 1.4)."""
        with self._audited(caller) as entry:
            now = self._clock()
            self._limit(self._addresses, client_network(caller.address), now)
            evidence = Evidence.decode(body)
            entry |= {"challenge_id": evidence.challenge_id.hex()}
            repeated = self._store.repeated_release(digest(body), now=now)
            if repeated is not None:
                self._note("repeated", entry)
                return repeated
            opened = self._store.consume_challenge(evidence.challenge_id)
            entry |= {"enclave_id": opened.ticket.enclave_id, "boot_id": opened.hello.boot_id.hex()}
            try:
                return self._release(body, evidence, opened, caller, entry, now)
            except Refused:
                self._store.refuse_challenge(evidence.challenge_id)
                raise

    def confirm(self, body: bytes, caller: Caller) -> bytes:
        """Marks a lease live or failed."""
        with self._audited(caller) as entry:
            now = self._clock()
            self._limit(self._addresses, client_network(caller.address), now)
            message = Confirm.decode(body)
            entry |= {"lease_id": message.lease_id.hex(), "outcome": message.outcome}

            def is_proof(lease_key: bytes, transcript: bytes) -> bool:
                expected = confirm_proof(lease_key, transcript, message.lease_id, message.outcome)
                return hmac.compare_digest(message.proof, expected)

            enclave_id = self._store.confirm(message.lease_id, message.outcome, is_proof, now=now)
            self._note("confirmed", entry | {"enclave_id": enclave_id})
            return b""

    def _release(
        self, body: bytes, evidence: Evidence, opened: OpenChallenge, caller: Caller, entry: dict[str, str], now: float
    ) -> bytes:
        require_unexpired(opened, now=now)
        record = admit(opened.ticket, self._store.record(opened.ticket.enclave_id))
        renews = opened.hello.previous_lease_id
        renewed = None
        if renews is not None:
            renewed = self._store.held_lease(renews, record.enclave_id, now=now)
            entry |= {"renews": renews.hex()}
        key_register = None if renewed is None else renewed.key_register
        self._store.require_free_lease(record, opened.ticket.parent, now=now, renewed=key_register)
        judged = judge(
            evidence,
            opened,
            record,
            channel=caller.exporter(evidence.challenge_id),
            source_ip=caller.address,
            roots=self._roots,
            now=datetime.fromtimestamp(now, UTC),
            renewed=renewed,
        )
        identities = self._identities(evidence, judged, now)
        lease = NewLease(
            lease_id=secrets.token_bytes(16),
            enclave_id=judged.record.enclave_id,
            evidence_digest=digest(body),
            transcript=judged.transcript,
            lease_key=SecretValue(secrets.token_bytes(32)),
            key_register=judged.result.pcrs[KEY_PCR],
            issued=now,
            expires=now + judged.record.lease_seconds,
            renews=renews,
        )

        def make(bundle_version: int) -> bytes:
            return self._make_release(evidence, opened, judged, lease, identities, bundle_version)

        release = self._grant(lease, evidence, opened, judged, make)
        known = "known" if caller.address in judged.record.addresses else "unknown"
        self._note(
            "released",
            entry | {"lease_id": lease.lease_id.hex(), "module_id": judged.result.module_id, "source_address": known},
        )
        return release

    def _grant(
        self, lease: NewLease, evidence: Evidence, opened: OpenChallenge, judged: Judged, make: Callable[[int], bytes]
    ) -> bytes:
        """Check 14. The same ticket with another key is what no honest enclave does."""
        used_by = key_id(evidence.hpke_public_key)
        try:
            return self._store.grant(
                lease,
                challenge_id=evidence.challenge_id,
                ticket=opened.ticket,
                used_by=used_by,
                judged_by=judged.record,
                make_release=make,
            )
        except Refused as refused:
            if refused.reason == "ticket_reused" and self._store.spent_by(opened.ticket.digest) == used_by:
                raise Refused("challenge_used", "this key has spent the ticket before, on another challenge") from None
            raise

    def _make_release(
        self,
        evidence: Evidence,
        opened: OpenChallenge,
        judged: Judged,
        lease: NewLease,
        identities: tuple[DeliveredIdentity, ...],
        bundle_version: int,
    ) -> bytes:
        header = ReleaseHeader(
            version=opened.challenge.version,
            suite=opened.challenge.suite,
            enclave_id=lease.enclave_id,
            lease_id=lease.lease_id,
            issued=int(lease.issued),
            lease_seconds=judged.record.lease_seconds,
            renew_after_seconds=judged.record.renew_after_seconds,
            epoch=judged.epoch,
            key_statement=self._keys.key_statement,
        )
        bundle = Bundle(version=bundle_version, lease_key=lease.lease_key, secrets=judged.record.secrets, identities=identities)
        return make_release(
            release_key=self._keys.release_key,
            header=header,
            bundle=bundle,
            hpke_public_key=evidence.hpke_public_key,
            document=evidence.document,
            transcript=judged.transcript,
        )

    def _identities(self, evidence: Evidence, judged: Judged, now: float) -> tuple[DeliveredIdentity, ...]:
        if evidence.certificate_request is None:
            return ()
        names, leaf = self._keys.issuing_ca.sign_request(
            evidence.certificate_request,
            judged.record.names,
            now=datetime.fromtimestamp(now, UTC),
            lifetime=timedelta(seconds=self._config.certificate_lifetime),
        )
        return (DeliveredIdentity(names=names, chain=(leaf, self._keys.issuing_ca.certificate.public_bytes(Encoding.DER))),)

    @contextmanager
    def _audited(self, caller: Caller) -> Iterator[dict[str, str]]:
        """Turns a protocol error into a `Failure` and an audit entry; what the request has told so far goes along."""
        entry = {"request_id": caller.request_id, "address": caller.address}
        try:
            yield entry
        except ProtocolError as error:
            # Every decoder's own reason is one and the same to the protocol: malformed.
            reason = error.reason if isinstance(error, Refused) else "malformed"
            # A spent ticket with another sealing key is what no honest enclave ever sends; at hello there is no key to compare.
            alarm = reason == "ticket_reused" and "challenge_id" in entry
            failure = Failure("refused") if alarm else external(reason)
            if reason != "rate_limited" or self._may_audit_flood(caller):
                self._note("refused", entry | {"code": failure.code, "why": error.detail}, reason=reason, alarm=alarm)
            raise failure from error

    def _may_audit_flood(self, caller: Caller) -> bool:
        """Whether this limited request gets a row: a flood must not become a flood of rows."""
        with self._buckets_lock:
            return not self._audited_floods.take(client_network(caller.address), now=self._clock())

    def _note(self, event: str, entry: dict[str, str], *, reason: str | None = None, alarm: bool = False) -> None:
        detail = dict(entry)
        enclave_id = detail.pop("enclave_id", None)
        row = AuditEntry(event=event, enclave_id=enclave_id, reason=reason, alarm=alarm, detail=detail)
        now = self._clock()
        audit.record(self._store, row, now=now)
        if next(self._rows) % ROWS_BETWEEN == 0:
            prune(self._store, self._config.audit, now=now)

    def _limit(self, buckets: TokenBuckets, key: str, now: float) -> None:
        with self._buckets_lock:
            wait = buckets.take(key, now=now)
        if wait:
            raise Refused("rate_limited", f"too many requests of {key}")
