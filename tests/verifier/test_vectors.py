"""Genuine documents, and what an independent verifier says of each."""

import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.net.clock import utc_now
from runtime.protocol.document import parse_document
from runtime.verifier.appraise import AppraisalFailed, AttestationResult, appraise
from runtime.verifier.reasons import Reason
from runtime.verifier.reference import ANY_MEASUREMENT, Measurement, ReferenceValues
from runtime.verifier.roots import aws_root
from tests.support.vectors import FOLDER, Vector, bindings, vectors

ACCEPTED = [vector for vector in vectors() if vector.accepted]
REFUSED = [vector for vector in vectors() if not vector.accepted]
EXPECTED_CODES = {"S2": Reason.SIGNATURE_INVALID, "P2": Reason.PAYLOAD_KEY, "P3": Reason.NITROTPM_DOCUMENT}


def at_its_own_time(vector: Vector, data: bytes | None = None) -> AttestationResult:
    return appraise(
        vector.data if data is None else data,
        now=vector.timestamp,
        roots=[aws_root()],
        reference=ANY_MEASUREMENT,
        allow_debug=True,
    )


def test_the_manifest_covers_every_document_of_the_folder() -> None:
    assert {path.name for path in FOLDER.glob("*.cbor")} == {vector.file for vector in vectors()}
    assert len(ACCEPTED) >= 50
    assert len(REFUSED) >= 5


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector.file)
def test_a_genuine_document_is_accepted_at_its_own_time(vector: Vector) -> None:
    result = at_its_own_time(vector)
    assert result.module_id == vector.entry["module_id"]
    assert result.timestamp == vector.entry["timestamp"]
    assert result.is_debug == vector.entry["debug"]
    assert result.certificate_expires == vector.entry["leaf_not_after"]
    certificate = x509.load_der_x509_certificate(parse_document(vector.data).certificate)
    assert result.certificate_fingerprint == certificate.fingerprint(SHA256())
    assert result.reference is None


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector.file)
def test_a_tampered_or_foreign_document_is_refused_at_its_own_time(vector: Vector) -> None:
    with pytest.raises(AppraisalFailed) as refused:
        at_its_own_time(vector)
    assert refused.value.codes == (EXPECTED_CODES[vector.entry["reject_rule"]],)


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector.file)
def test_no_document_of_the_past_is_accepted_today(vector: Vector) -> None:
    with pytest.raises(AppraisalFailed) as refused:
        appraise(vector.data, now=utc_now(), roots=[aws_root()], reference=ANY_MEASUREMENT, allow_debug=True, max_age=None)
    if vector.accepted:
        assert set(refused.value.codes) == {Reason.CERTIFICATE_EXPIRED}


@pytest.mark.parametrize("vector", [vector for vector in ACCEPTED if vector.entry["debug"]], ids=lambda vector: vector.file)
def test_a_genuine_debug_document_is_refused_unless_the_caller_allows_it(vector: Vector) -> None:
    with pytest.raises(AppraisalFailed) as refused:
        appraise(vector.data, now=vector.timestamp, roots=[aws_root()], reference=ANY_MEASUREMENT)
    assert refused.value.codes == (Reason.DEBUG_ENCLAVE,)


@pytest.mark.parametrize("vector", [vector for vector in ACCEPTED if not vector.entry["debug"]], ids=lambda vector: vector.file)
def test_a_genuine_document_matches_the_measurements_of_the_manifest(vector: Vector) -> None:
    registers = {int(index): bytes.fromhex(value) for index, value in vector.entry["pcrs"].items() if index != "zero"}
    reference = ReferenceValues(measurements=(Measurement(name=vector.file, pcrs=registers, epoch=3),))
    result = appraise(vector.data, now=vector.timestamp, roots=[aws_root()], reference=reference)
    assert result.reference == reference.measurements[0]


def test_a_genuine_document_of_other_code_does_not_match() -> None:
    production = [vector for vector in ACCEPTED if not vector.entry["debug"] and vector.entry["kind"] == "enclave"]
    own = {vector.file: parse_document(vector.data).pcrs[0] for vector in production}
    first = production[0]
    reference = ReferenceValues(measurements=(Measurement(name="first", pcrs={0: own[first.file]}),))
    others = [vector for vector in production if own[vector.file] != own[first.file]]
    assert len(others) >= 10
    for vector in others:
        with pytest.raises(AppraisalFailed) as refused:
            appraise(vector.data, now=vector.timestamp, roots=[aws_root()], reference=reference)
        assert refused.value.codes == (Reason.MEASUREMENT_UNKNOWN,)


@pytest.mark.parametrize(
    ("certificate", "file"),
    [(binding["certificate"], file) for binding in bindings() for file in binding["documents"]],
)
def test_user_data_that_is_the_key_of_a_tls_certificate_binds_it(certificate: str, file: str) -> None:
    key = x509.load_der_x509_certificate((FOLDER / certificate).read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    vector = next(found for found in vectors() if found.file == file)
    result = appraise(
        vector.data, now=vector.timestamp, roots=[aws_root()], reference=ANY_MEASUREMENT, user_data=spki, allow_debug=True
    )
    assert result.user_data == spki
    with pytest.raises(AppraisalFailed) as refused:
        appraise(
            vector.data,
            now=vector.timestamp,
            roots=[aws_root()],
            reference=ANY_MEASUREMENT,
            user_data=spki[:-1] + bytes((spki[-1] ^ 1,)),
            allow_debug=True,
        )
    assert refused.value.codes == (Reason.USER_DATA_MISMATCH,)


@pytest.mark.parametrize("share", range(8))
def test_no_flipped_bit_of_a_genuine_document_goes_unseen(share: int) -> None:
    vector = next(found for found in ACCEPTED if found.entry["payload_map"] == "indefinite" and not found.entry["debug"])
    for position in range(share, len(vector.data), 8):
        altered = bytearray(vector.data)
        altered[position] ^= 1 << (position // 8 % 8)
        with pytest.raises(AppraisalFailed):
            at_its_own_time(vector, bytes(altered))


@given(st.sampled_from(ACCEPTED), st.integers(0, 10**6), st.integers(1, 255))
@settings(deadline=None)
def test_no_changed_byte_of_any_genuine_document_goes_unseen(vector: Vector, position: int, change: int) -> None:
    altered = bytearray(vector.data)
    altered[position % len(altered)] ^= change
    if bytes(altered) != vector.data:
        with pytest.raises(AppraisalFailed):
            at_its_own_time(vector, bytes(altered))


def test_a_document_is_good_until_its_certificate_expires_and_no_longer() -> None:
    vector = ACCEPTED[-1]
    expires = vector.entry["leaf_not_after"]
    for moment in (vector.timestamp, expires):
        appraise(vector.data, now=moment, roots=[aws_root()], reference=ANY_MEASUREMENT, max_age=None, allow_debug=True)
    with pytest.raises(AppraisalFailed) as refused:
        appraise(
            vector.data,
            now=expires + timedelta(microseconds=1),
            roots=[aws_root()],
            reference=ANY_MEASUREMENT,
            max_age=None,
            allow_debug=True,
        )
    assert refused.value.codes == (Reason.CERTIFICATE_EXPIRED,)


def test_one_appraisal_takes_no_longer_than_20_milliseconds() -> None:
    vector = ACCEPTED[-1]
    spent = []
    for _ in range(15):
        start = time.thread_time()  # of this thread alone: other tests run beside it
        at_its_own_time(vector)
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.020
