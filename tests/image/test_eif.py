"""Image files: AWS's own are read and measured as AWS did, and whatever else is refused with one error."""

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from runtime.image.eif import HEADER_SIZE, Eif, Section, SectionKind, read_eif, write_eif
from runtime.image.measure import described, measure
from runtime.image.signature import read_signature, write_signature
from runtime.protocol import cbor
from runtime.protocol.errors import Malformed
from tests.image.eifs import EifVector, eifs, genuine

K = SectionKind


def file_of(*sections: tuple[SectionKind, bytes], is_aarch64: bool = False) -> bytes:
    return b"".join(write_eif([Section(kind=kind, data=data) for kind, data in sections], is_aarch64=is_aarch64))


def with_crc(data: bytes) -> bytes:
    return data[:544] + zlib.crc32(data[:544] + data[HEADER_SIZE:]).to_bytes(4, "big") + data[HEADER_SIZE:]


def patched(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: with_crc(data[:at] + new + data[at + len(new) :])


SMALL = file_of((K.KERNEL, b"kernel"), (K.COMMAND_LINE, b"quiet"), (K.METADATA, b"{}"), (K.RAMDISK, b"one"), (K.RAMDISK, b"two"))


@pytest.mark.parametrize("vector", [each for each in eifs() if each.accepted], ids=lambda vector: vector.file)
def test_an_image_has_the_registers_that_awss_tool_printed(vector: EifVector) -> None:
    measured = measure(read_eif(vector.data))
    assert {f"PCR{number}": value.hex() for number, value in measured.pcrs.items()} == vector.pcrs
    assert (measured.signature is not None) == measured.is_signature_valid == vector.file.startswith("signed")


@pytest.mark.parametrize("vector", [each for each in eifs() if not each.accepted], ids=lambda vector: vector.file)
def test_an_image_that_is_wrong_is_refused_or_its_signature_is_not_valid(vector: EifVector) -> None:
    if vector.file == "bad-signature-of-another-image.eif":
        measured = measure(read_eif(vector.data))
        assert measured.signature is not None
        assert not measured.is_signature_valid
        return
    with pytest.raises(Malformed):
        read_eif(vector.data)


def test_what_is_written_is_read_again_and_awss_own_file_comes_out_byte_for_byte() -> None:
    eif = read_eif(SMALL)
    assert [(each.kind, bytes(each.data)) for each in eif.sections] == [
        (K.KERNEL, b"kernel"),
        (K.COMMAND_LINE, b"quiet"),
        (K.METADATA, b"{}"),
        (K.RAMDISK, b"one"),
        (K.RAMDISK, b"two"),
    ]
    for name in ("two-ramdisks.eif", "one-ramdisk.eif", "signed-p384.eif", "custom-metadata.eif"):
        data = genuine(name)
        assert b"".join(write_eif(read_eif(data).sections, is_aarch64=False)) == data
    assert read_eif(
        file_of((K.KERNEL, b"k"), (K.COMMAND_LINE, b""), (K.METADATA, b"{}"), (K.RAMDISK, b"r"), is_aarch64=True)
    ).is_aarch64


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda data: b"", "at least 548"),
        (lambda data: data[:547], "at least 548"),
        (patched(0, b"EIF."), "does not begin"),
        (patched(4, b"\x00\x05"), "version 5"),
        (patched(6, b"\x00\x02"), "flags"),
        (patched(26, b"\x00\x21"), "33 sections"),
        (patched(26, b"\x00\x04"), "more sections than it counts"),
        (patched(28, b"\x00\x00\x00\x00\x00\x00\x02\x25"), "disagree"),
        (patched(0x11C, b"\x00\x00\x00\x00\x00\x00\x00\x07"), "disagree"),
        (patched(HEADER_SIZE, b"\x00\x06"), "unknown type 6"),
        (patched(HEADER_SIZE + 2, b"\x00\x01"), "flags"),
        (patched(HEADER_SIZE + 4, b"\xff" * 8), "disagree"),
        (lambda data: with_crc(data + b"\x00"), "follow the last section"),
        (lambda data: with_crc(data[:-1]), "of which 2 are there"),
        (lambda data: data[:-1] + b"O", "CRC"),
        (lambda data: data[:544] + b"\x00\x00\x00\x00" + data[548:], "CRC"),
    ],
)
def test_a_file_with_one_thing_wrong_is_refused_for_that(alter: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read_eif(alter(SMALL))


def test_a_size_of_64_bits_that_agrees_with_itself_is_still_not_believed() -> None:
    huge = struct.pack(">Q", 2**64 - 1)
    data = SMALL[: 0x11C + 32] + huge + SMALL[0x11C + 40 :]
    last = len(data) - 3 - 12
    with pytest.raises(Malformed, match="of which 3 are there"):
        read_eif(with_crc(data[: last + 4] + huge + data[last + 12 :]))


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ((K.COMMAND_LINE, K.METADATA, K.RAMDISK), "KERNEL"),
        ((K.KERNEL, K.KERNEL, K.COMMAND_LINE, K.METADATA, K.RAMDISK), "KERNEL"),
        ((K.KERNEL, K.METADATA, K.RAMDISK), "COMMAND_LINE"),
        ((K.KERNEL, K.COMMAND_LINE, K.RAMDISK), "metadata"),
        ((K.KERNEL, K.COMMAND_LINE, K.METADATA), "ramdisk"),
        ((K.KERNEL, K.COMMAND_LINE, K.METADATA, K.METADATA, K.RAMDISK), "METADATA"),
        ((K.KERNEL, K.COMMAND_LINE, K.METADATA, K.RAMDISK, K.SIGNATURE, K.SIGNATURE), "SIGNATURE"),
        ((K.COMMAND_LINE, K.KERNEL, K.METADATA, K.RAMDISK), "begins with"),
        ((K.RAMDISK, K.KERNEL, K.COMMAND_LINE, K.METADATA), "begins with"),
        ((K.KERNEL, K.COMMAND_LINE, K.METADATA, *[K.RAMDISK] * 30), "33 sections"),
    ],
)
def test_no_image_without_its_sections_or_with_one_twice_is_written(kinds: tuple[SectionKind, ...], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        file_of(*((kind, b"x") for kind in kinds))


def test_sections_larger_than_any_tool_makes_them_are_refused() -> None:
    for kind, size in ((K.SIGNATURE, 32_769), (K.METADATA, (1 << 20) + 1)):
        sections = {K.KERNEL: b"", K.COMMAND_LINE: b"", K.METADATA: b"{}", K.RAMDISK: b"", kind: bytes(size)}
        with pytest.raises(Malformed, match=kind.name):
            file_of(*sections.items())


@given(st.binary(max_size=700), st.integers(0, len(SMALL)))
def test_no_bytes_raise_anything_but_the_documented_error(data: bytes, at: int) -> None:
    for each in (data, SMALL[:at] + data, with_crc((SMALL[:at] + data).ljust(HEADER_SIZE, b"\0"))):
        with suppress(Malformed):
            assert isinstance(read_eif(each), Eif)


def signer(curve: ec.EllipticCurve) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.generate_private_key(curve)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=365))
        .sign(key, hashes.SHA384())
    )
    return key, certificate.public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("curve", "hashed"),
    [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384()), (ec.SECP521R1(), hashes.SHA512())],
    ids=["p256", "p384", "p521"],
)
def test_a_signature_is_of_its_image_and_of_no_other(curve: ec.EllipticCurve, hashed: hashes.HashAlgorithm) -> None:
    key, pem = signer(curve)
    register = measure(read_eif(SMALL)).pcrs[0]
    section = write_signature(pem, register, lambda message: key.sign(message, ec.ECDSA(hashed)))
    signature = read_signature(section)
    assert signature.is_of(register)
    assert not signature.is_of(bytes(48))
    sections = [*read_eif(SMALL).sections, Section(kind=K.SIGNATURE, data=section)]
    measured = measure(read_eif(b"".join(write_eif(sections, is_aarch64=False))))
    assert measured.is_signature_valid
    assert measured.pcrs[0] == register
    assert described(measured)["SignatureCheck"] is True


def test_nothing_is_signed_with_a_key_that_is_not_the_certificates() -> None:
    _, pem = signer(ec.SECP384R1())
    other, _ = signer(ec.SECP384R1())
    with pytest.raises(Malformed, match="not by the certificate's key"):
        write_signature(pem, bytes(48), lambda message: other.sign(message, ec.ECDSA(hashes.SHA384())))
    with pytest.raises(Malformed, match="cannot be read"):
        write_signature(b"no certificate", bytes(48), lambda message: b"")


def decoded(data: bytes) -> Any:
    return cbor.decode_wellformed(data, max_size=32_768)


def test_our_section_is_of_the_form_of_awss_own() -> None:
    section = read_eif(genuine("signed-p384.eif")).one_of(K.SIGNATURE)
    assert section is not None
    ours_key, ours_pem = signer(ec.SECP384R1())
    ours = write_signature(ours_pem, bytes(48), lambda message: ours_key.sign(message, ec.ECDSA(hashes.SHA384())))

    def shape(data: bytes) -> object:
        entry = decoded(data)[0]
        envelope = decoded(bytes(entry["signature"]))
        payload = decoded(envelope[2])
        return list(entry), envelope[0], envelope[1], list(payload), type(payload["register_value"])

    assert shape(ours) == shape(bytes(section))


@pytest.mark.parametrize("at", range(0, 1555, 7))
def test_a_damaged_signature_section_is_malformed_or_not_valid(at: int) -> None:
    eif = read_eif(genuine("signed-p384.eif"))
    section = bytearray(eif.one_of(K.SIGNATURE) or b"")
    section[at] ^= 0x01
    sections = [*(each for each in eif.sections if each.kind is not K.SIGNATURE), Section(kind=K.SIGNATURE, data=bytes(section))]
    try:
        measured = measure(read_eif(b"".join(write_eif(sections, is_aarch64=False))))
    except Malformed:
        return
    original = measure(eif)
    # Text around the certificate's PEM is not signed and changes nothing.
    assert not measured.is_signature_valid or measured.pcrs == original.pcrs or measured.pcrs[8] != original.pcrs[8]


@pytest.mark.parametrize("metadata", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_metadata_that_is_no_object_is_refused(metadata: bytes) -> None:
    with pytest.raises(Malformed, match="metadata"):
        measure(read_eif(file_of((K.KERNEL, b"k"), (K.COMMAND_LINE, b""), (K.METADATA, metadata), (K.RAMDISK, b"r"))))
