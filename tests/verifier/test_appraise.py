"""What a caller expects of a document, and what it gets when any of it is not so."""

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from runtime.verifier.appraise import AppraisalFailed, AttestationResult, appraise
from runtime.verifier.reasons import Reason
from runtime.verifier.reference import ANY_MEASUREMENT, Measurement, ReferenceValues
from runtime.verifier.roots import aws_root
from tests.support import documents
from tests.support.documents import MADE, MODULE_ID, NONCE, NOW, USER_DATA, document

ZERO = bytes(48)
GOOD = Measurement(name="payments 1.4.0", pcrs={0: b"\x01" * 48, 2: b"\x03" * 48}, epoch=7)


def accept(data: bytes | None = None, **asked: Any) -> AttestationResult:
    usual: dict[str, Any] = {"now": NOW, "roots": [documents.trusted_root()], "reference": ANY_MEASUREMENT}
    return appraise(document() if data is None else data, **usual | asked)


def refuse(data: bytes | None = None, **asked: Any) -> AppraisalFailed:
    with pytest.raises(AppraisalFailed) as refused:
        accept(data, **asked)
    assert str(refused.value)
    return refused.value


def codes(data: bytes | None = None, **asked: Any) -> tuple[str, ...]:
    return refuse(data, **asked).codes


def one_of(*measurements: Measurement) -> ReferenceValues:
    return ReferenceValues(measurements=measurements)


def test_the_result_carries_what_the_document_says_and_what_it_matched() -> None:
    result = accept(document(public_key=b"key"), reference=one_of(GOOD), nonce=NONCE, user_data=USER_DATA, public_key=b"key")
    assert result == AttestationResult(
        module_id=MODULE_ID,
        timestamp=MADE,
        pcrs=documents.pcrs(),
        public_key=b"key",
        user_data=USER_DATA,
        nonce=NONCE,
        reference=GOOD,
        is_debug=False,
        certificate_fingerprint=sha256(documents.certificates()[-1]).digest(),
        certificate_expires=MADE + timedelta(hours=3),
    )
    with pytest.raises(FrozenInstanceError):
        result.module_id = "another"  # type: ignore[misc]  # the point of the test


def test_without_reference_values_nothing_is_accepted() -> None:
    assert codes(reference=None) == (Reason.REFERENCE_MISSING,)


@pytest.mark.parametrize("reference", [True, "any measurement", (), object()])
def test_what_is_neither_reference_values_nor_any_measurement_is_none(reference: object) -> None:
    assert codes(reference=reference) == (Reason.REFERENCE_MISSING,)


def test_any_measurement_must_be_asked_for_and_then_matches_none() -> None:
    assert accept(reference=ANY_MEASUREMENT).reference is None


def test_one_of_several_measurements_is_enough_and_is_the_one_named() -> None:
    old = Measurement(name="payments 1.3.9", pcrs={0: b"\x09" * 48})
    assert accept(reference=one_of(old, GOOD)).reference == GOOD


def test_every_register_of_a_measurement_must_match() -> None:
    almost = Measurement(name="almost", pcrs={0: b"\x01" * 48, 1: b"\x02" * 48, 2: b"\x04" * 48})
    failed = refuse(reference=one_of(almost))
    assert failed.codes == (Reason.MEASUREMENT_UNKNOWN,)
    (mismatch,) = failed.mismatches
    assert mismatch.expected == f"PCR2={'04' * 48}"
    assert mismatch.actual == f"PCR2={'03' * 48}"


def test_registers_of_two_measurements_do_not_add_up_to_a_match() -> None:
    first = Measurement(name="first", pcrs={0: b"\x01" * 48, 2: b"\x09" * 48})
    second = Measurement(name="second", pcrs={0: b"\x09" * 48, 2: b"\x03" * 48})
    assert codes(reference=one_of(first, second)) == (Reason.MEASUREMENT_UNKNOWN,)


def test_a_register_that_the_document_lacks_is_a_mismatch_even_when_zero_is_expected() -> None:
    locked = Measurement(name="locked", pcrs={16: ZERO})
    failed = refuse(reference=one_of(locked))
    assert failed.codes == (Reason.MEASUREMENT_UNKNOWN,)
    assert failed.mismatches[0].actual == ""


def test_the_nearest_measurement_explains_the_refusal() -> None:
    far = Measurement(name="far", pcrs={0: ZERO, 1: ZERO, 2: ZERO})
    near = Measurement(name="near", pcrs={0: b"\x01" * 48, 1: ZERO})
    assert "'near', differs in PCR1" in refuse(reference=one_of(far, near)).mismatches[0].detail


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_document_of_up_to_60_seconds_is_fresh(seconds: int) -> None:
    assert accept(now=MADE + timedelta(seconds=seconds)).timestamp == MADE


def test_a_document_of_more_than_60_seconds_is_stale() -> None:
    assert codes(now=MADE + timedelta(seconds=60, microseconds=1)) == (Reason.DOCUMENT_STALE,)


def test_the_caller_sets_the_age_and_none_is_for_archives() -> None:
    late = MADE + timedelta(hours=2)
    assert codes(now=late) == (Reason.DOCUMENT_STALE,)
    assert codes(now=late, max_age=3600.0) == (Reason.DOCUMENT_STALE,)
    accept(now=late, max_age=7200.0)
    accept(now=late, max_age=None)


def test_a_chain_that_expired_is_refused_however_old_a_document_may_be() -> None:
    assert codes(now=MADE + timedelta(hours=4), max_age=None) == (Reason.CERTIFICATE_EXPIRED,)


def at(moment: datetime) -> bytes:
    return document(timestamp=int(moment.timestamp() * 1000))


def test_a_document_up_to_5_seconds_from_the_future_is_a_matter_of_clocks() -> None:
    accept(at(NOW + timedelta(seconds=5)))
    assert codes(at(NOW + timedelta(seconds=5, milliseconds=1))) == (Reason.DOCUMENT_FROM_FUTURE,)
    accept(at(NOW + timedelta(seconds=20)), max_skew=20.0)


def test_seconds_in_place_of_milliseconds_and_the_reverse_are_refused() -> None:
    assert codes(document(timestamp=int(MADE.timestamp()))) == (Reason.DOCUMENT_STALE,)
    assert codes(document(timestamp=int(MADE.timestamp()) * 10**6)) == (Reason.PAYLOAD_TIMESTAMP,)
    assert codes(document(timestamp=253402300799999)) == (Reason.DOCUMENT_FROM_FUTURE,)
    assert codes(document(timestamp=253402300799999), max_age=None) == (Reason.DOCUMENT_FROM_FUTURE,)


def test_the_moment_may_be_given_in_any_time_zone_but_not_without_one() -> None:
    accept(now=NOW.astimezone(timezone(timedelta(hours=-7))))
    with pytest.raises(ValueError, match="time zone"):
        accept(now=NOW.replace(tzinfo=None))


@pytest.mark.parametrize("field", ["nonce", "user_data", "public_key"])
@pytest.mark.parametrize("actual", [b"another", b"", b"expecte", b"expected ", None])
def test_an_expected_value_must_be_there_byte_for_byte(field: str, actual: bytes | None) -> None:
    changes: dict[str, Any] = {field: actual}
    failed = refuse(document(**changes), **{field: b"expected"})
    assert failed.codes == (f"{field}_mismatch",)
    assert failed.mismatches[0].expected == b"expected".hex()
    assert failed.mismatches[0].actual == (actual or b"").hex()


def test_an_empty_value_is_expected_like_any_other_and_null_is_not_empty() -> None:
    accept(document(nonce=b""), nonce=b"")
    assert codes(document(nonce=None), nonce=b"") == (Reason.NONCE_MISMATCH,)
    assert codes(document(nonce=b"x"), nonce=b"") == (Reason.NONCE_MISMATCH,)


DEBUG = dict.fromkeys((0, 1, 2), ZERO)


def test_a_debug_document_is_refused_unless_allowed_and_then_says_so() -> None:
    data = document(pcrs=documents.pcrs() | DEBUG)
    assert codes(data) == (Reason.DEBUG_ENCLAVE,)
    assert accept(data, allow_debug=True).is_debug


def test_a_debug_document_never_matches_the_measurements_of_its_build() -> None:
    data = document(pcrs=documents.pcrs() | DEBUG)
    assert codes(data, allow_debug=True, reference=one_of(GOOD)) == (Reason.MEASUREMENT_UNKNOWN,)


def test_a_document_without_pcr_0_1_and_2_counts_as_debug() -> None:
    registers = {4: documents.pcrs()[4]}
    assert codes(document(pcrs=registers)) == (Reason.DEBUG_ENCLAVE,)


def test_pcr4_must_be_the_instance_that_module_id_names() -> None:
    other = documents.pcrs() | {4: ZERO}
    assert codes(document(pcrs=other)) == (Reason.INSTANCE_REGISTER,)
    without = {index: value for index, value in documents.pcrs().items() if index != 4}
    assert codes(document(pcrs=without)) == (Reason.INSTANCE_REGISTER,)


def test_a_module_without_an_instance_has_no_pcr4_to_compare() -> None:
    chain = documents.altered(-1, common_name="module.us-east-1.aws")
    assert accept(documents.chained(chain, module_id="module", pcrs=documents.pcrs() | {4: ZERO})).module_id == "module"


def test_the_certificate_must_be_that_of_the_module() -> None:
    assert codes(document(module_id="i-0123456789abcdef0-enc")) == (Reason.MODULE_NAME,)
    assert codes(document(module_id=MODULE_ID + ".us")) == (Reason.MODULE_NAME,)


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    plans = documents.altered(2, not_after=MADE)
    content = documents.payload(documents.fields(documents.write_chain(plans)) | {"pcrs": DEBUG | {4: b"\x04" * 48}})
    data = documents.envelope(content, signature=bytes(95) + b"\x01")
    found = codes(
        data,
        roots=[aws_root()],
        now=MADE + timedelta(minutes=5),
        reference=one_of(GOOD),
        nonce=b"n",
        user_data=b"u",
        public_key=b"p",
    )
    assert set(found) == {
        Reason.ROOT_UNKNOWN,
        Reason.CERTIFICATE_EXPIRED,
        Reason.SIGNATURE_RANGE,
        Reason.DOCUMENT_STALE,
        Reason.NONCE_MISMATCH,
        Reason.USER_DATA_MISMATCH,
        Reason.PUBLIC_KEY_MISMATCH,
        Reason.DEBUG_ENCLAVE,
        Reason.MEASUREMENT_UNKNOWN,
        Reason.INSTANCE_REGISTER,
    }


def test_without_roots_nothing_is_trusted_and_with_several_any_one_is() -> None:
    assert codes(roots=[]) == (Reason.ROOT_UNKNOWN,)
    assert codes(roots=[aws_root()]) == (Reason.ROOT_UNKNOWN,)
    accept(roots=[aws_root(), documents.trusted_root()])


def test_an_issuer_that_is_trusted_but_stands_second_is_no_root() -> None:
    region = x509.load_der_x509_certificate(documents.certificates()[1])
    assert codes(roots=[region]) == (Reason.ROOT_UNKNOWN,)


@given(st.binary(max_size=400))
def test_any_bytes_end_in_a_refusal(data: bytes) -> None:
    assert refuse(data).mismatches


@given(st.data())
def test_any_certificates_end_in_a_refusal(data: st.DataObject) -> None:
    chain = list(documents.certificates())
    place = data.draw(st.integers(0, 4))
    start = data.draw(st.integers(0, len(chain[place]) - 1))
    cut = data.draw(st.integers(1, 12))
    new = data.draw(st.binary(max_size=12))
    altered = chain[place][:start] + new + chain[place][start + cut :]
    if altered != chain[place] and altered:
        chain[place] = altered
        assert refuse(document(chain)).mismatches


def test_a_moment_at_either_end_of_the_calendar_is_a_refusal_like_any_other() -> None:
    assert Reason.DOCUMENT_FROM_FUTURE in codes(now=datetime.min.replace(tzinfo=UTC))
    assert Reason.DOCUMENT_STALE in codes(now=datetime.max.replace(tzinfo=UTC))
