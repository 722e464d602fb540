"""The provisioner's judgement of evidence: checks 3 (but for the quota) to 13 of protocol/README.md section 1.4, in that order. Pure.

Each refusal carries the internal reason of section 1.6. The challenge was consumed before (check 2); the ticket is spent and the lease
written afterwards, in one transaction (check 14, runtime/provisioner/store.py).
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from runtime.protocol.binding import encode_prov
from runtime.protocol.digest import digest
from runtime.protocol.document import parse_document
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.handshake import document_public_key, lease_proof
from runtime.protocol.measurements import (
    CONFIG_PCR,
    INSTANCE_PCR,
    KEY_PCR,
    LIVE_PCR,
    ROLE_PCR,
    ZERO,
    config_commitment,
    extended_once,
    instance_register,
    key_commitment,
    live_commitment,
    role_register,
)
from runtime.protocol.messages import Evidence, transcript
from runtime.protocol.sealing import Suite, load_public_key
from runtime.provisioner.records import NO_ROLE, EnclaveRecord
from runtime.provisioner.store import HeldLease, OpenChallenge, Ticket
from runtime.verifier.appraise import AppraisalFailed, AttestationResult, appraise
from runtime.verifier.reasons import prov_reason

MAX_AGE = 60.0
MAX_SKEW = 5.0
"""Seconds that a document may be older, and newer, than the provisioner's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Evidence that passed: what the release is made from. `epoch` is of the reference value that matched."""

    record: EnclaveRecord
    result: AttestationResult
    transcript: bytes
    epoch: int


def require_unexpired(opened: OpenChallenge, *, now: float) -> None:
    """The times of check 3. Raises `Refused`: challenge_expired, ticket_expired."""
    if opened.expires <= now:
        raise Refused("challenge_expired", "evidence after the challenge's time")
    if opened.ticket.expires <= now:
        raise Refused("ticket_expired", "evidence after the ticket's time")


def admit(ticket: Ticket, record: EnclaveRecord | None) -> EnclaveRecord:
    """What check 3 asks of the record, at hello as at evidence. Raises `Refused`: record_inactive, parent_unknown, instance_unknown.

    The instance is what the parent named when it bought the ticket; that the enclave is on that one is check 12.
    """
    if record is None or record.status != "active":
        raise Refused("record_inactive", "no active record for the ticket's enclave")
    if ticket.parent not in record.parents:
        raise Refused("parent_unknown", "the record no longer names the parent that bought the ticket")
    require_listed(record, ticket.instance_id)
    return record


def require_listed(record: EnclaveRecord, instance_id: str) -> None:
    """Raises `Refused` with instance_unknown for an instance that the record does not allow."""
    if record.instances is not None and instance_id not in record.instances:
        raise Refused("instance_unknown", f"the record does not list the instance {instance_id}")


def judge(
    evidence: Evidence,
    opened: OpenChallenge,
    record: EnclaveRecord,
    *,
    channel: bytes,
    source_ip: str,
    roots: Sequence[x509.Certificate],
    now: datetime,
    renewed: HeldLease | None,
) -> Judged:
    """Raises `Refused` with the first reason that applies. `record` is what `admit` gave for the challenge's ticket.

    `renewed` is the lease that the hello wants to renew, None for a setup;
    `channel` is the exporter of the connection that the evidence came on.
    """
    expected = transcript(
        opened.hello,
        opened.challenge,
        hpke_public_key=evidence.hpke_public_key,
        channel=None if record.channel == "none" else channel,
        certificate_request=evidence.certificate_request,
    )
    registers = _Registers(evidence, opened, record, expected, renewed)
    result = _appraised(registers, roots=roots, now=now)
    epoch = registers.require(result.pcrs)
    _instance_is_the_tickets(opened, result)
    if record.strict_source_ip and source_ip not in record.addresses:
        raise Refused("source_ip", f"{source_ip} is no address of this instance")
    return Judged(record=record, result=result, transcript=expected, epoch=epoch)


@dataclass(frozen=True, slots=True)
class _Registers:
    """What the registers of a document are compared with."""

    evidence: Evidence
    opened: OpenChallenge
    record: EnclaveRecord
    transcript: bytes
    renewed: HeldLease | None

    def require(self, pcrs: Mapping[int, bytes]) -> int:
        """What checks 10 to 12 ask of the registers, up to the role; gives the epoch of the release that matched."""
        measurement = self.record.reference.match(pcrs)
        if measurement is None:
            raise Refused("measurement_unknown", "no reference value matches")
        if measurement.epoch < self.record.epoch_floor:
            raise Refused("epoch_floor", f"epoch {measurement.epoch} is below the record's floor {self.record.epoch_floor}")
        config_digest = self.opened.hello.config_digest
        if measurement.config_digest is not None and not _equal(config_digest, measurement.config_digest):
            raise Refused("config_mismatch", "the hello names another config than the reference value")
        if not _equal(pcrs.get(CONFIG_PCR), extended_once(config_commitment(config_digest, self.record.host_parameters))):
            raise Refused("config_mismatch", "PCR 16 does not commit to the config that the hello named")
        if self.renewed is None:
            self._require_setup(pcrs)
        else:
            self._require_live(pcrs, self.renewed)
        roles = {ZERO if role == NO_ROLE else role_register(role) for role in self.record.roles}
        if pcrs.get(ROLE_PCR) not in roles:
            raise Refused("host_role", "PCR 3 is of no allowed role")
        return measurement.epoch

    def _require_setup(self, pcrs: Mapping[int, bytes]) -> None:
        """A customer process that turned hostile cannot pass it: PCR 18 was locked before it was spawned."""
        if not _equal(pcrs.get(KEY_PCR), extended_once(key_commitment(self.evidence.hpke_public_key))):
            raise Refused("phase_not_setup", "PCR 17 does not commit to the sealing key")
        if LIVE_PCR in pcrs:
            raise Refused("phase_not_setup", "PCR 18 is there: this boot has opened its secrets before")
        if self.evidence.lease_proof is not None:
            raise Refused("phase_not_setup", "the proof of a previous lease belongs to a renewal")

    def _require_live(self, pcrs: Mapping[int, bytes], renewed: HeldLease) -> None:
        """A customer process that turned hostile cannot pass it either: it has no lease key."""
        if not _equal(pcrs.get(KEY_PCR), renewed.key_register):
            raise Refused("phase_not_live", "PCR 17 is not that of the boot that the lease was released to")
        if not _equal(pcrs.get(LIVE_PCR), extended_once(live_commitment())):
            raise Refused("phase_not_live", "PCR 18 does not say that this boot has opened its secrets")
        if not _equal(self.evidence.lease_proof, lease_proof(renewed.lease_key.reveal(), self.transcript)):
            raise Refused("lease_proof", "a renewal without the key of the lease")


def _appraised(registers: _Registers, *, roots: Sequence[x509.Certificate], now: datetime) -> AttestationResult:
    """Checks 4 to 10, but for the epoch."""
    evidence, opened, record = registers.evidence, registers.opened, registers.record
    suite = Suite(opened.challenge.suite)
    if suite not in record.suites:
        raise Refused("suite_refused", f"the record no longer allows suite {suite}")
    try:
        load_public_key(suite, evidence.hpke_public_key)
    except Malformed as error:
        raise Refused("transcript_mismatch", error.detail) from error
    public_key = document_public_key(evidence.hpke_public_key)
    try:
        result = appraise(
            evidence.document,
            now=now,
            roots=roots,
            reference=record.reference,
            nonce=opened.challenge.server_nonce,
            user_data=encode_prov(registers.transcript),
            public_key=public_key,
            max_age=MAX_AGE,
            max_skew=MAX_SKEW,
        )
    except AppraisalFailed as failed:
        reason = prov_reason(failed.mismatches)
        if reason == "host_instance":  # nothing else is wrong with the document, and these checks come before
            registers.require(parse_document(evidence.document).pcrs)
        raise Refused(reason, "; ".join(map(str, failed.mismatches))) from failed
    if public_key is None and result.public_key is not None:
        raise Refused("transcript_mismatch", "the document carries a public key that the sealing key does not explain")
    return result


def _instance_is_the_tickets(opened: OpenChallenge, result: AttestationResult) -> None:
    """The rest of check 12."""
    instance = result.module_id.partition("-enc")[0]
    same_register = _equal(result.pcrs.get(INSTANCE_PCR), instance_register(opened.ticket.instance_id))
    if instance != opened.ticket.instance_id or not same_register:
        raise Refused("host_instance", f"evidence from {instance}, the ticket is for {opened.ticket.instance_id}")


def _equal(value: bytes | None, expected: bytes) -> bool:
    return value is not None and hmac.compare_digest(value, expected)


def key_id(hpke_public_key: bytes) -> bytes:
    """What a ticket is spent by."""
    return digest(hpke_public_key)
