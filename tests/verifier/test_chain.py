"""Chains that must be believed although they are not those that AWS makes today, and the strict reading of certificates."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.document import parse_document
from runtime.protocol.errors import Malformed
from runtime.verifier.certificate import ECDSA_WITH_SHA384, Certificate, parse_certificate
from runtime.verifier.chain import judge_chain
from tests.support import der_writer as der
from tests.support import documents
from tests.support.documents import NOW, Plan, altered, key, nitro_chain, write_chain
from tests.support.vectors import FOLDER, vectors


def judged(*plans: Plan, now: datetime = NOW) -> set[str]:
    *cabundle, certificate = write_chain(plans)
    root = x509.load_der_x509_certificate(cabundle[0])
    return {str(mismatch.code) for mismatch in judge_chain(certificate, cabundle, roots=[root], now=now).mismatches}


def genuine_certificates() -> list[bytes]:
    accepted = [parse_document(vector.data) for vector in vectors() if vector.accepted]
    return sorted({encoded for document in accepted for encoded in (*document.cabundle, document.certificate)})


def test_the_shape_of_todays_chains_is_accepted() -> None:
    assert judged(*nitro_chain()) == set()


def test_a_leaf_directly_under_the_root_is_accepted() -> None:
    assert judged(nitro_chain()[0], nitro_chain()[-1]) == set()


def test_eight_issuers_without_path_lengths_are_accepted() -> None:
    more = [Plan(common_name=f"issuer {number}", key=key(20 + number)) for number in range(7)]
    assert judged(nitro_chain()[0], *more, nitro_chain()[-1]) == set()


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        pytest.param(-1, {"basic": b""}, id="a leaf without basicConstraints"),
        pytest.param(-1, {"usage": der.key_usage(der.DIGITAL_SIGNATURE)}, id="a leaf for digital signatures only, critical"),
        pytest.param(-1, {"extra": der.extension("1.2.3.4", b"anything")}, id="an unknown extension that is not critical"),
        pytest.param(-1, {"subject_key_id": None, "authority_key_id": None}, id="a leaf with key identifiers"),
        pytest.param(3, {"subject_key_id": b"", "authority_key_id": b""}, id="an issuer without key identifiers"),
        pytest.param(2, {"extra": der.extension("2.5.29.31", der.sequence())}, id="a pointer to revocation lists"),
        pytest.param(2, {"basic": der.basic_constraints(path_length=2**300)}, id="a path length beyond every integer type"),
        pytest.param(1, {"serial": der.integer(2**160 - 1)}, id="a serial number of 20 bytes and a sign"),
        pytest.param(1, {"not_after": datetime(2099, 1, 1, tzinfo=UTC)}, id="an end after 2050"),
        pytest.param(1, {"authority_key_id": der.extension("2.5.29.35", der.sequence())}, id="an empty authority key id"),
    ],
)
def test_what_the_rules_leave_open_is_accepted(place: int, changes: dict[str, bytes]) -> None:
    assert judged(*altered(place, **changes)) == set()


def test_both_ends_of_a_validity_are_inside_it() -> None:
    plans = altered(2, not_before=NOW, not_after=NOW)
    assert judged(*plans) == set()


def test_a_leaf_that_cannot_be_read_gives_no_key_to_verify_with() -> None:
    cabundle = documents.certificates()[:-1]
    found = judge_chain(b"\x30\x00", cabundle, roots=[documents.trusted_root()], now=NOW)
    assert (found.leaf, found.key) == (None, None)
    assert [mismatch.code for mismatch in found.mismatches] == ["certificate_syntax"]


def test_a_certificate_after_one_that_cannot_be_read_is_still_judged() -> None:
    root, _, zone, instance, leaf = documents.certificates()
    found = judge_chain(leaf, (root, b"garbage", zone, instance[:-1], instance), roots=[], now=NOW)
    assert {str(mismatch.code) for mismatch in found.mismatches} == {"root_unknown", "certificate_syntax", "path_length"}


def test_genuine_certificates_are_read_as_cryptography_reads_them() -> None:
    certificates = genuine_certificates()
    assert len(certificates) > 150
    for encoded in certificates:
        ours, theirs = parse_certificate(encoded), x509.load_der_x509_certificate(encoded)
        public = theirs.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert ours.p384_key() == public
        assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
        assert (ours.signed, ours.signature) == (theirs.tbs_certificate_bytes, theirs.signature)
        assert (ours.subject, ours.issuer) == (theirs.subject.public_bytes(), theirs.issuer.public_bytes())
        assert ours.common_name == theirs.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        constraints = theirs.extensions.get_extension_for_class(x509.BasicConstraints)
        assert ours.basic_constraints is not None
        assert ours.basic_constraints.critical == constraints.critical
        assert ours.basic_constraints.ca == constraints.value.ca
        assert ours.basic_constraints.path_length == constraints.value.path_length
        usage = theirs.extensions.get_extension_for_class(x509.KeyUsage).value
        assert ours.key_usage is not None
        assert (0 in ours.key_usage, 5 in ours.key_usage) == (usage.digital_signature, usage.key_cert_sign)
        identifiers = {type(extension.value): extension.value for extension in theirs.extensions}
        subject, authority = identifiers.get(x509.SubjectKeyIdentifier), identifiers.get(x509.AuthorityKeyIdentifier)
        assert ours.subject_key_id == getattr(subject, "digest", None)
        assert ours.authority_key_id == getattr(authority, "key_identifier", None)
        assert ours.unknown_critical == ()


def test_certificates_of_other_uses_and_keys_are_read_too() -> None:
    for path in FOLDER.glob("cert-*.der"):
        ours, theirs = parse_certificate(path.read_bytes()), x509.load_der_x509_certificate(path.read_bytes())
        assert ours.subject == theirs.subject.public_bytes()
        public = theirs.public_key()
        is_p384 = isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp384r1"
        assert ours.p384_key() == (public if is_p384 else None)


def outcome(data: bytes) -> Certificate | str:
    try:
        return parse_certificate(data)
    except Malformed as error:
        return error.reason


@given(st.sampled_from(documents.certificates()), st.integers(0, 10**6), st.integers(1, 255))
def test_an_altered_certificate_is_read_as_cryptography_reads_it_or_refused(encoded: bytes, position: int, change: int) -> None:
    altered_bytes = bytearray(encoded)
    altered_bytes[position % len(altered_bytes)] ^= change
    ours = outcome(bytes(altered_bytes))
    if isinstance(ours, Certificate):
        try:
            theirs = x509.load_der_x509_certificate(bytes(altered_bytes))
        except ValueError:  # it looks into keys and algorithms that the chain's rules refuse unread
            assert ours.p384_key() is None or {ours.algorithm, ours.signed_algorithm} != {ECDSA_WITH_SHA384}
            return
        assert (ours.signed, ours.signature) == (theirs.tbs_certificate_bytes, theirs.signature)
        assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    else:
        assert ours == "certificate_syntax"


def test_every_prefix_of_a_certificate_is_refused() -> None:
    encoded = documents.certificates()[1]
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            parse_certificate(encoded[:size])


@given(st.binary(max_size=300))
def test_any_bytes_give_a_certificate_or_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_certificate(data)
