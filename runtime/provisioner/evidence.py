"""The provisioner's judgement of evidence: checks 3 to 13 of protocol/README.md section 1.4, in that order. Pure.

Each refusal carries the internal reason of section 1.6. The challenge was consumed before (check 2); the ticket is spent and the lease
written afterwards, in one transaction (check 14, runtime/provisioner/store.py).
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from runtime.protocol.binding import encode_prov
from runtime.protocol.digest import digest
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.handshake import document_public_key
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
    role_register,
)
from runtime.protocol.messages import Evidence, transcript
from runtime.protocol.sealing import Suite, load_public_key
from runtime.provisioner.records import NO_ROLE, EnclaveRecord
from runtime.provisioner.store import OpenChallenge
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


def judge(
    evidence: Evidence,
    opened: OpenChallenge,
    record: EnclaveRecord | None,
    *,
    channel: bytes,
    source_ip: str,
    quota_is_free: bool,
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> Judged:
    """Raises `Refused` with the first reason that applies. `channel` is the exporter of the connection that the evidence came on."""
    record = _admitted(opened, record, quota_is_free=quota_is_free, now=now.timestamp())
    expected = transcript(
        opened.hello,
        opened.challenge,
        hpke_public_key=evidence.hpke_public_key,
        channel=None if record.channel == "none" else channel,
        certificate_request=evidence.certificate_request,
    )
    result = _appraised(evidence, opened, record, expected, roots=roots, now=now)
    epoch = _release_known(result, record)
    _phase_is_setup(evidence, opened, record, result)
    _host_is_known(opened, record, result)
    if record.strict_source_ip and source_ip not in record.addresses:
        raise Refused("source_ip", f"{source_ip} is no address of this instance")
    return Judged(record=record, result=result, transcript=expected, epoch=epoch)


def _admitted(opened: OpenChallenge, record: EnclaveRecord | None, *, quota_is_free: bool, now: float) -> EnclaveRecord:
    """Check 3, with the challenge's own time."""
    if opened.expires <= now:
        raise Refused("challenge_expired", "evidence after the challenge's time")
    if opened.ticket.expires <= now:
        raise Refused("ticket_expired", "evidence after the ticket's time")
    if record is None or record.status != "active":
        raise Refused("record_inactive", "no active record for the ticket's enclave")
    if not quota_is_free:
        raise Refused("lease_quota", f"{record.lease_quota} leases are out")
    return record


def _appraised(
    evidence: Evidence,
    opened: OpenChallenge,
    record: EnclaveRecord,
    expected_transcript: bytes,
    *,
    roots: Sequence[x509.Certificate],
    now: datetime,
) -> AttestationResult:
    """Checks 4 to 10."""
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
            user_data=encode_prov(expected_transcript),
            public_key=public_key,
            max_age=MAX_AGE,
            max_skew=MAX_SKEW,
        )
    except AppraisalFailed as failed:
        raise Refused(prov_reason(failed.mismatches), "; ".join(map(str, failed.mismatches))) from failed
    if public_key is None and result.public_key is not None:
        raise Refused("transcript_mismatch", "the document carries a public key that the sealing key does not explain")
    return result


def _release_known(result: AttestationResult, record: EnclaveRecord) -> int:
    """The rest of check 10: the epoch of the release that matched."""
    epoch = result.reference.epoch if result.reference is not None else 0
    if epoch < record.epoch_floor:
        raise Refused("epoch_floor", f"epoch {epoch} is below the record's floor {record.epoch_floor}")
    return epoch


def _phase_is_setup(evidence: Evidence, opened: OpenChallenge, record: EnclaveRecord, result: AttestationResult) -> None:
    """Check 11. A customer process that turned hostile cannot pass it: PCR 18 was locked before it was spawned."""
    measured = result.reference.config_digest if result.reference is not None else None
    if measured is not None and not _equal(opened.hello.config_digest, measured):
        raise Refused("config_mismatch", "the hello names another config than the reference value")
    config = extended_once(config_commitment(opened.hello.config_digest, record.host_parameters))
    if not _equal(result.pcrs.get(CONFIG_PCR), config):
        raise Refused("config_mismatch", "PCR 16 does not commit to the config that the hello named")
    if not _equal(result.pcrs.get(KEY_PCR), extended_once(key_commitment(evidence.hpke_public_key))):
        raise Refused("phase_not_setup", "PCR 17 does not commit to the sealing key")
    if LIVE_PCR in result.pcrs:
        raise Refused("phase_not_setup", "PCR 18 is there: this boot has opened its secrets before")
    if evidence.lease_proof is not None:
        raise Refused("phase_not_setup", "the proof of a previous lease belongs to a renewal")


def _host_is_known(opened: OpenChallenge, record: EnclaveRecord, result: AttestationResult) -> None:
    """Check 12."""
    roles = {ZERO if role == NO_ROLE else role_register(role) for role in record.roles}
    if result.pcrs.get(ROLE_PCR) not in roles:
        raise Refused("host_role", "PCR 3 is of no allowed role")
    instance = result.module_id.partition("-enc")[0]
    same_register = _equal(result.pcrs.get(INSTANCE_PCR), instance_register(opened.ticket.instance_id))
    if instance != opened.ticket.instance_id or not same_register:
        raise Refused("host_instance", f"evidence from {instance}, the ticket is for {opened.ticket.instance_id}")


def _equal(value: bytes | None, expected: bytes) -> bool:
    return value is not None and hmac.compare_digest(value, expected)


def key_id(hpke_public_key: bytes) -> bytes:
    """What a ticket is spent by."""
    return digest(hpke_public_key)
