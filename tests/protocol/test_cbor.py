"""CBOR: the examples of RFC 8949, another implementation as oracle, and every refusal."""

import tracemalloc
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.protocol.cbor import MAX_DEPTH, MAX_ITEMS, MESSAGE_MAX, decode, decode_wellformed, encode, head
from runtime.protocol.errors import LocalProtocolError, Malformed

# RFC 8949 Appendix A, in its order: what is deterministic and within our kinds.
EXAMPLES: list[tuple[str, Any]] = [
    ("00", 0), ("01", 1), ("0a", 10), ("17", 23), ("1818", 24), ("1819", 25), ("1864", 100), ("1903e8", 1000), ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000), ("1bffffffffffffffff", 18446744073709551615), ("3bffffffffffffffff", -18446744073709551616),
    ("20", -1), ("29", -10), ("3863", -100), ("3903e7", -1000), ("f4", False), ("f5", True), ("f6", None),
    ("40", b""), ("4401020304", b"\x01\x02\x03\x04"), ("60", ""), ("6161", "a"), ("6449455446", "IETF"), ("62225c", '"\\'),
    ("62c3bc", "\u00fc"), ("63e6b0b4", "\u6c34"), ("64f0908591", "\U00010151"), ("80", []), ("83010203", [1, 2, 3]),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}), ("a201020304", {1: 2, 3: 4}), ("a26161016162820203", {"a": 1, "b": [2, 3]}), ("826161a161626163", ["a", {"b": "c"}]),
    ("a56161614161626142616361436164614461656145", {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}),
]  # fmt: skip

# The same appendix: indefinite lengths, which only the second decoder takes.
INDEFINITE: list[tuple[str, Any]] = [
    ("9fff", []), ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]), ("9f01820203820405ff", [1, [2, 3], [4, 5]]),
    ("83018202039f0405ff", [1, [2, 3], [4, 5]]), ("83019f0203ff820405", [1, [2, 3], [4, 5]]),
    ("9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff", list(range(1, 26))),
    ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}), ("826161bf61626163ff", ["a", {"b": "c"}]),
    ("bf6346756ef563416d7421ff", {"Fun": True, "Amt": -2}),
]  # fmt: skip

# The same appendix: what neither decoder takes.
REFUSED_EXAMPLES = [
    ("c249010000000000000000", "cbor_tag"), ("c349010000000000000000", "cbor_tag"), ("f90000", "cbor_float"), ("f98000", "cbor_float"),
    ("fb3ff199999999999a", "cbor_float"), ("fa47c35000", "cbor_float"), ("f97e00", "cbor_float"), ("f7", "cbor_reserved"),
    ("f0", "cbor_reserved"), ("f8ff", "cbor_reserved"), ("c074323031332d30332d32315432303a30343a30305a", "cbor_tag"),
    ("d74401020304", "cbor_tag"), ("5f42010243030405ff", "cbor_indefinite"), ("7f657374726561646d696e67ff", "cbor_indefinite"),
]  # fmt: skip


def deterministic(data: bytes) -> Any:
    return decode(data, max_size=1 << 20)


def wellformed(data: bytes) -> Any:
    return decode_wellformed(data, max_size=1 << 20)


BOTH = pytest.mark.parametrize("decoder", [deterministic, wellformed])


def same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True, also as a key."""
    if type(left) is not type(right):
        return False
    match left:
        case list():
            return len(left) == len(right) and all(map(same, left, right))
        case dict():
            return len(left) == len(right) and all(key in right and same(left[key], right[key]) for key in left)
        case _:
            return bool(left == right)


@pytest.mark.parametrize(("encoded", "value"), EXAMPLES)
def test_the_examples_of_the_rfc_are_read_and_written(encoded: str, value: Any) -> None:
    assert same(deterministic(bytes.fromhex(encoded)), value)
    assert same(wellformed(bytes.fromhex(encoded)), value)
    assert encode(value).hex() == encoded


@pytest.mark.parametrize(("encoded", "value"), INDEFINITE)
def test_indefinite_lengths_are_read_only_where_the_nsm_writes_them(encoded: str, value: Any) -> None:
    assert same(wellformed(bytes.fromhex(encoded)), value)
    with pytest.raises(Malformed) as refused:
        deterministic(bytes.fromhex(encoded))
    assert refused.value.reason == "cbor_indefinite"


@BOTH
@pytest.mark.parametrize(("encoded", "reason"), REFUSED_EXAMPLES)
def test_the_examples_of_other_kinds_are_refused(decoder: Any, encoded: str, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        decoder(bytes.fromhex(encoded))
    assert refused.value.reason == reason


@BOTH
@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "truncated"), ("18", "truncated"), ("1901", "truncated"), ("1b00000000000000", "truncated"), ("41", "truncated"),
        ("6261", "truncated"), ("81", "truncated"), ("a1", "truncated"), ("a100", "truncated"), ("8201", "truncated"),
        ("5bffffffffffffffff", "truncated"), ("7b7fffffffffffffff61", "truncated"), ("9bffffffffffffffff", "truncated"),
        ("bb7fffffffffffffff", "truncated"), ("9a0001000000", "truncated"),
        ("0000", "trailing_bytes"), ("8080", "trailing_bytes"), ("f6f6", "trailing_bytes"),
        ("1c", "cbor_reserved"), ("3d", "cbor_reserved"), ("5e", "cbor_reserved"), ("9c", "cbor_reserved"), ("ff", "cbor_reserved"),
        ("81ff", "cbor_reserved"), ("fc", "cbor_reserved"), ("e0", "cbor_reserved"), ("f3", "cbor_reserved"), ("f818", "cbor_reserved"),
        ("1f", "cbor_indefinite"), ("3f", "cbor_indefinite"), ("5fff", "cbor_indefinite"), ("7fff", "cbor_indefinite"),
        ("62c328", "cbor_utf8"), ("63eda080", "cbor_utf8"), ("62c080", "cbor_utf8"), ("64f4908080", "cbor_utf8"), ("61ff", "cbor_utf8"),
        ("a201000100", "cbor_duplicate_key"), ("a2616100616100", "cbor_duplicate_key"), ("a2410000410000", "cbor_duplicate_key"),
        ("a1f400", "cbor_key"), ("a1f600", "cbor_key"), ("a18000", "cbor_key"), ("a1a000", "cbor_key"),
        ("c000", "cbor_tag"), ("dbffffffffffffffff00", "cbor_tag"), ("d9d9f700", "cbor_tag"),
    ],
)  # fmt: skip
def test_what_is_not_well_formed_or_not_ours_is_refused_by_both(decoder: Any, encoded: str, reason: str) -> None:
    with pytest.raises(Malformed) as refused:
        decoder(bytes.fromhex(encoded))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("1800", 0), ("1817", 23), ("190018", 24), ("1900ff", 255), ("1a0000ffff", 65535), ("1b00000000ffffffff", 2**32 - 1), ("3800", -1),
        ("580161", b"a"), ("7900026161", "aa"), ("9800", []), ("b90000", {}), ("a2020001f6", {2: 0, 1: None}),
        ("a2616100414100", {"a": 0, b"A": 0}), ("a2626161006162f5", {"aa": 0, "b": True}),
    ],
)  # fmt: skip
def test_longer_heads_and_other_orders_are_read_only_where_the_nsm_writes_them(encoded: str, value: Any) -> None:
    assert same(wellformed(bytes.fromhex(encoded)), value)
    with pytest.raises(Malformed) as refused:
        deterministic(bytes.fromhex(encoded))
    assert refused.value.reason == "cbor_not_deterministic"


@BOTH
@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00"])
def test_nesting_ends_at_eight(decoder: Any, opening: bytes) -> None:
    assert decoder(opening * (MAX_DEPTH - 1) + b"\x00")
    for depth in (MAX_DEPTH, 100_000):
        with pytest.raises(Malformed) as refused:
            decoder(opening * depth + b"\x00")
        assert refused.value.reason == "too_deep"


@BOTH
def test_items_are_counted(decoder: Any) -> None:
    assert len(decoder(encode([0] * (MAX_ITEMS - 1)))) == MAX_ITEMS - 1
    with pytest.raises(Malformed) as refused:
        decoder(encode([0] * MAX_ITEMS))
    assert refused.value.reason == "too_large"


def test_a_message_has_a_size() -> None:
    assert decode(encode(bytes(MESSAGE_MAX - 3))) == bytes(MESSAGE_MAX - 3)
    with pytest.raises(Malformed) as refused:
        decode(encode(bytes(MESSAGE_MAX - 2)))
    assert refused.value.reason == "too_large"


@BOTH
@pytest.mark.parametrize("claim", ["5b0000000100000000", "7b0000000100000000", "9a7fffffff", "ba7fffffff", "9f9a7fffffff"])
def test_a_claimed_length_allocates_nothing(decoder: Any, claim: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            decoder(bytes.fromhex(claim) + bytes(1000))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value", [1.5, 2**64, -(2**64) - 1, {1, 2}, bytearray(b"x"), range(3), [1, {"a": 0.0}], {0: 2**64}, {1.5: 0}], ids=repr
)
def test_a_value_of_another_kind_is_our_own_mistake(value: object) -> None:
    with pytest.raises(LocalProtocolError):
        encode(value)


def test_tuples_are_arrays() -> None:
    assert encode((1, ("a",))) == encode([1, ["a"]])


@pytest.mark.parametrize(
    ("argument", "size"), [(0, 1), (23, 1), (24, 2), (255, 2), (256, 3), (65535, 3), (65536, 5), (2**32 - 1, 5), (2**32, 9)]
)
def test_a_head_has_its_shortest_form(argument: int, size: int) -> None:
    for major in range(7):
        assert len(head(major, argument)) == size
        assert head(major, argument)[0] >> 5 == major


KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    KEYS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


def depth(value: Any) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=1)
        case _:
            return 1


@given(VALUES)
def test_what_is_written_is_read_by_both_and_by_another_implementation(value: Any) -> None:
    assume(depth(value) <= MAX_DEPTH)
    encoded = encode(value)
    assert same(deterministic(encoded), value)
    assert same(wellformed(encoded), value)
    assert same(cbor2.loads(encoded), value)


@given(VALUES, st.booleans())
def test_what_another_implementation_writes_is_read(value: Any, indefinite: bool) -> None:
    assume(depth(value) <= MAX_DEPTH)
    assert same(wellformed(cbor2.dumps(value, indefinite_containers=indefinite)), value)


@given(VALUES)
def test_one_value_has_one_encoding_with_its_keys_in_bytewise_order(value: Any) -> None:
    assume(depth(value) <= MAX_DEPTH)
    assert encode(deterministic(encode(value))) == encode(value)
    if isinstance(value, dict):
        assert list(map(encode, deterministic(encode(value)))) == sorted(map(encode, value))
        assert encode(dict(reversed(value.items()))) == encode(value)


@given(st.binary(max_size=40))
def test_any_bytes_that_are_read_mean_the_same_to_another_implementation(data: bytes) -> None:
    try:
        value = wellformed(data)
    except Malformed:
        with pytest.raises(Malformed):
            deterministic(data)
        return
    assert same(cbor2.loads(data), value)
    assert same(deterministic(encode(value)), value)


@given(st.binary(max_size=40))
def test_any_bytes_that_are_deterministic_are_the_one_encoding(data: bytes) -> None:
    again = data
    with suppress(Malformed):
        again = encode(deterministic(data))
    assert again == data


@given(VALUES, st.data())
def test_an_item_cut_short_or_followed_by_more_is_refused(value: Any, data: st.DataObject) -> None:
    assume(depth(value) <= MAX_DEPTH)
    encoded = encode(value)
    length = data.draw(st.integers(0, len(encoded) - 1))
    for decoder in (deterministic, wellformed):
        with pytest.raises(Malformed):
            decoder(encoded[:length])
        with pytest.raises(Malformed, match="after the end"):
            decoder(encoded + b"\x00")


def test_true_and_one_are_different_values() -> None:
    assert type(deterministic(b"\xf5")) is bool
    assert type(deterministic(b"\x01")) is int
    assert encode(True) != encode(1)
