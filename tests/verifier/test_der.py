"""DER values that have one form, and the forms that are refused."""

import pytest

from runtime.protocol.buffer import Cursor
from runtime.protocol.errors import Malformed
from runtime.verifier import der


@pytest.mark.parametrize(
    ("contents", "value"),
    [("00", 0), ("7f", 127), ("0080", 128), ("80", -128), ("ff7f", -129), ("ff", -1)],
)
def test_an_integer_in_its_shortest_form_is_read(contents: str, value: int) -> None:
    assert der.integer(bytes.fromhex(contents)) == value


@pytest.mark.parametrize("contents", ["", "0000", "007f", "ffff", "ff80"])
def test_an_integer_in_any_other_form_is_refused(contents: str) -> None:
    with pytest.raises(Malformed):
        der.integer(bytes.fromhex(contents))


@pytest.mark.parametrize(
    ("contents", "dotted"),
    [
        ("550403", "2.5.4.3"),
        ("2a864886f70d", "1.2.840.113549"),
        ("883703", "2.999.3"),
        ("00", "0.0"),
        ("7f", "2.47"),
        ("27", "0.39"),
    ],
)
def test_an_object_identifier_is_read(contents: str, dotted: str) -> None:
    assert der.oid(bytes.fromhex(contents)) == dotted


@pytest.mark.parametrize("contents", ["", "80", "5580", "558001", "55ff"])
def test_an_object_identifier_in_any_other_form_is_refused(contents: str) -> None:
    with pytest.raises(Malformed):
        der.oid(bytes.fromhex(contents))


def test_an_object_identifier_as_long_as_a_certificate_is_read() -> None:
    assert len(der.oid(b"\xff" * 1000 + b"\x01")) > 2000


@pytest.mark.parametrize(("contents", "bits"), [("00", set()), ("0780", {0}), ("0186", {0, 5, 6}), ("070080", {8}), ("0001", {7})])
def test_named_bits_are_read(contents: str, bits: set[int]) -> None:
    assert der.named_bits(bytes.fromhex(contents)) == bits


@pytest.mark.parametrize("contents", ["", "01", "0880", "0000", "0080", "0780ff", "0781", "068000", "0687"])
def test_named_bits_in_any_other_form_are_refused(contents: str) -> None:
    with pytest.raises(Malformed):
        der.named_bits(bytes.fromhex(contents))


@pytest.mark.parametrize("contents", ["", "01", "fe", "ffff"])
def test_a_boolean_in_any_other_form_is_refused(contents: str) -> None:
    with pytest.raises(Malformed):
        der.boolean(bytes.fromhex(contents))


@pytest.mark.parametrize(
    ("text", "year"), [("500101000000Z", 1950), ("991231235959Z", 1999), ("000101000000Z", 2000), ("491231235959Z", 2049)]
)
def test_the_century_of_a_short_time_turns_at_50(text: str, year: int) -> None:
    encoded = bytes((der.UTC_TIME, len(text))) + text.encode()
    assert der.time(Cursor(encoded)).year == year


@pytest.mark.parametrize("text", ["20491231235959Z", "205001010000Z", "20500101000000.5Z", "20500101000000", "20501301000000Z"])
def test_a_long_time_that_is_not_in_the_form_of_rfc_5280_is_refused(text: str) -> None:
    encoded = bytes((der.GENERALIZED_TIME, len(text))) + text.encode()
    with pytest.raises(Malformed):
        der.time(Cursor(encoded))


@pytest.mark.parametrize("length", ["80", "8101", "817f", "82007f", "8200ff", "830000ff", "8400000080", "850000000080", "ff"])
def test_a_length_in_any_other_form_is_refused(length: str) -> None:
    with pytest.raises(Malformed):
        der.element(Cursor(bytes((der.OCTET_STRING,)) + bytes.fromhex(length) + bytes(300)), der.OCTET_STRING)
