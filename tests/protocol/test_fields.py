"""Integer-keyed maps: every field once, with its exact type and size, and nothing left over."""

from typing import Any

import pytest

from runtime.protocol import fields as reader
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import UINT_MAX, Fields


def test_fields_are_taken_by_key_and_type() -> None:
    fields = Fields({0: 7, 1: b"abc", 2: "text", 3: [1, 2], 4: None}, "hello")
    assert (fields.uint(0), fields.octets(1), fields.text(2), fields.array(3, reader.uint)) == (7, b"abc", "text", (1, 2))
    assert 4 in fields
    assert fields.take(4) is None
    assert 4 not in fields
    fields.finish()


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [], [0, 1], True])
def test_anything_but_a_map_is_refused(value: Value) -> None:
    with pytest.raises(Malformed, match="hello must be a map"):
        Fields(value, "hello")


def test_a_field_that_is_missing_or_taken_already_is_refused() -> None:
    fields = Fields({0: 1}, "hello")
    fields.uint(0)
    for key in (0, 1):
        with pytest.raises(Malformed, match=f"hello lacks field {key}"):
            fields.uint(key)


@pytest.mark.parametrize("value", [-1, 2**64, True, False, None, "1", b"1", [], {}])
def test_an_unsigned_integer_is_exactly_that(value: Any) -> None:
    with pytest.raises(Malformed, match=r"hello\.0 must be an unsigned integer"):
        Fields({0: value}, "hello").uint(0)


def test_an_integer_has_its_bounds() -> None:
    assert Fields({0: UINT_MAX}, "hello").uint(0) == 2**64 - 1
    assert Fields({0: 60}, "hello").uint(0, most=60) == 60
    with pytest.raises(Malformed, match="of at most 60"):
        Fields({0: 61}, "hello").uint(0, most=60)


@pytest.mark.parametrize("value", [b"abc", "abcd", 4, None, [97, 98, 99, 100], b"abcde", b""])
def test_a_byte_string_has_its_size(value: Any) -> None:
    assert Fields({0: b"abcd"}, "hello").octets(0, size=4) == b"abcd"
    with pytest.raises(Malformed, match=r"hello\.0 must be a byte string of 4 bytes"):
        Fields({0: value}, "hello").octets(0, size=4)


@pytest.mark.parametrize("size", [0, 5])
def test_a_byte_string_has_its_bounds(size: int) -> None:
    assert Fields({0: b"x"}, "hello").octets(0, least=1, most=4) == b"x"
    with pytest.raises(Malformed, match="of 1 to 4 bytes"):
        Fields({0: bytes(size)}, "hello").octets(0, least=1, most=4)


@pytest.mark.parametrize("value", ["", "abcde", b"abc", 3, None])
def test_text_has_its_bounds_in_characters(value: Any) -> None:
    assert Fields({0: "éééé"}, "hello").text(0, least=1, most=4) == "éééé"
    with pytest.raises(Malformed, match=r"hello\.0 must be text of 1 to 4 characters"):
        Fields({0: value}, "hello").text(0, least=1, most=4)


@pytest.mark.parametrize("value", [[], [1, 2, 3, 4], {0: 1}, "ab", None])
def test_an_array_has_its_bounds(value: Any) -> None:
    with pytest.raises(Malformed, match=r"hello\.0 must be an array of 1 to 3 items"):
        Fields({0: value}, "hello").array(0, reader.uint, least=1, most=3)


def test_an_item_of_an_array_is_named_by_its_index() -> None:
    with pytest.raises(Malformed, match=r"hello\.0\[1\] must be an unsigned integer"):
        Fields({0: [1, "2"]}, "hello").array(0, reader.uint)


@pytest.mark.parametrize("key", [9, 64, -1, "9", b"9"])
def test_a_field_that_nobody_took_is_refused(key: int | str | bytes) -> None:
    with pytest.raises(Malformed, match="hello has an unknown field"):
        Fields({key: 1}, "hello").finish()


def test_keys_from_64_on_are_passed_over_where_a_header_allows_it() -> None:
    Fields({64: 1, 2**64 - 1: 2}, "header").finish(ignore_from=64)
    for key in (63, -64, "64", b"64"):
        with pytest.raises(Malformed, match="header has an unknown field"):
            Fields({key: 1}, "header").finish(ignore_from=64)


def test_the_map_that_was_given_stays_as_it_was() -> None:
    value: Value = {0: 1}
    Fields(value, "hello").uint(0)
    assert value == {0: 1}
