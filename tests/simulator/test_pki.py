"""The development chain against the table of genuine ones (names apart)."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from runtime.simulator.pki import SigningChain, make_root, open_root

NOW = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
REGION = "xx-test-1"
CA_USAGE = {"digital_signature", "key_cert_sign", "crl_sign"}


def chain_at(now: datetime) -> list[x509.Certificate]:
    credentials = SigningChain(make_root(now=now), module_id=MODULE_ID, region=REGION).current(now)
    return [*map(x509.load_der_x509_certificate, credentials.cabundle), credentials.leaf.certificate]


def common_name(certificate: x509.Certificate) -> str:
    [attribute] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


def usages(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(usage, name)}


def extensions(certificate: x509.Certificate) -> dict[str, bool]:
    """Names and criticality."""
    return {type(extension.value).__name__: extension.critical for extension in certificate.extensions}


def test_the_chain_has_the_lifetimes_of_genuine_ones() -> None:
    lives = [certificate.not_valid_after_utc - certificate.not_valid_before_utc for certificate in chain_at(NOW)]
    expected = [timedelta(days=365 * 30), timedelta(days=20), timedelta(days=6), timedelta(days=1), timedelta(hours=3, seconds=3)]
    assert lives == expected
    assert {certificate.not_valid_before_utc for certificate in chain_at(NOW)} == {NOW.replace(microsecond=0)}


def test_every_certificate_is_p384_signed_by_the_one_before_it() -> None:
    chain = chain_at(NOW)
    for issuer, certificate in zip([chain[0], *chain], chain, strict=False):
        certificate.verify_directly_issued_by(issuer)
        key = certificate.public_key()
        assert isinstance(key, EllipticCurvePublicKey)
        assert isinstance(key.curve, SECP384R1)
        assert certificate.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA384


def test_the_extensions_are_those_of_genuine_certificates() -> None:
    root, region, zone, instance, leaf = chain_at(NOW)
    authority = {"BasicConstraints": True, "KeyUsage": True, "SubjectKeyIdentifier": False}
    issued = authority | {"AuthorityKeyIdentifier": False}
    assert extensions(root) == authority
    assert extensions(region) == extensions(zone) == issued | {"CRLDistributionPoints": False}
    assert extensions(instance) == issued
    assert extensions(leaf) == {"BasicConstraints": True, "KeyUsage": False}
    constraints = [
        certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        for certificate in (root, region, zone, instance)
    ]
    assert [(found.ca, found.path_length) for found in constraints] == [(True, None), (True, 2), (True, 1), (True, 0)]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert usages(root) == usages(region) == usages(zone) == CA_USAGE
    assert usages(instance) == {"key_cert_sign"}
    assert usages(leaf) == {"digital_signature", "content_commitment"}


def test_the_names_have_the_form_of_genuine_ones_and_are_not_awss() -> None:
    chain = chain_at(NOW)
    root, region, zone, instance, leaf = map(common_name, chain)
    assert root == "dev.nitro-enclaves"
    assert region.endswith(f".{REGION}.dev.nitro-enclaves")
    assert zone.endswith(f".zonal.{REGION}.dev.nitro-enclaves")
    assert instance == f"i-0123456789abcdef0.{REGION}.dev.nitro-enclaves"
    assert leaf == f"{MODULE_ID}.{REGION}.aws"
    for certificate in chain:
        name = certificate.subject.rfc4514_string()
        assert "Simulated" in name
        assert "Amazon" not in name
        assert "OU=AWS" not in name


def test_every_certificate_fits_in_a_document() -> None:
    credentials = SigningChain(make_root(now=NOW), module_id=MODULE_ID).current(NOW)
    assert all(len(der) <= 1024 for der in (*credentials.cabundle, credentials.leaf.der))


def test_a_leaf_is_used_again_until_it_has_40_minutes_left() -> None:
    chain = SigningChain(make_root(now=NOW), module_id=MODULE_ID)
    first = chain.current(NOW)
    assert chain.current(NOW + timedelta(hours=2, minutes=20)) == first
    later = chain.current(NOW + timedelta(hours=2, minutes=21))
    assert later.leaf != first.leaf
    assert later.cabundle == first.cabundle


@pytest.mark.parametrize("passed", [timedelta(hours=22), timedelta(days=7), timedelta(days=400), timedelta(seconds=-2)])
def test_whatever_time_has_passed_every_certificate_is_valid(passed: timedelta) -> None:
    now = NOW + passed
    chain = SigningChain(make_root(now=NOW - timedelta(days=1)), module_id=MODULE_ID)
    chain.current(NOW)
    credentials = chain.current(now)
    for certificate in [*map(x509.load_der_x509_certificate, credentials.cabundle), credentials.leaf.certificate]:
        assert certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc - timedelta(minutes=40)


def test_a_folder_keeps_one_root_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    first = open_root(folder, now=NOW)
    second = open_root(folder, now=NOW + timedelta(days=3))
    assert second.certificate == first.certificate
    assert second.key.private_numbers() == first.key.private_numbers()
    assert x509.load_pem_x509_certificate((folder / "root.pem").read_bytes()) == first.certificate
    assert stat.S_IMODE((folder / "root.key").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["root.key", "root.pem"]


def test_a_key_that_is_not_the_roots_is_refused(tmp_path: Path) -> None:
    open_root(tmp_path / "one", now=NOW)
    open_root(tmp_path / "other", now=NOW)
    (tmp_path / "other/root.key").replace(tmp_path / "one/root.key")
    with pytest.raises(ValueError, match=r"root\.key"):
        open_root(tmp_path / "one", now=NOW)


def test_a_private_key_is_in_no_repr() -> None:
    root = make_root(now=NOW)
    assert "key=" not in repr(root)
