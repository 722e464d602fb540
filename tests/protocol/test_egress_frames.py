"""The frames that open an egress connection."""

from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.egress_frames import (
    BODY_MAX,
    PREFIX_SIZE,
    Connect,
    Connected,
    RefusalReason,
    Refused,
    decode_answer,
    decode_connect,
    encode_answer,
    encode_connect,
    remaining_size,
)
from runtime.protocol.errors import LocalProtocolError, Malformed


def test_the_bytes_are_the_ones_that_the_specification_names() -> None:
    assert encode_connect(Connect(host="a.b", port=443)) == bytes.fromhex("00000013 82 67") + b"connect" + bytes.fromhex(
        "a2 00 63"
    ) + b"a.b" + bytes.fromhex("01 19 01bb")
    assert encode_answer(Connected()) == bytes.fromhex("0000000c 82 69") + b"connected" + bytes.fromhex("a0")
    assert cbor.decode(encode_answer(Refused(reason="forbidden"))[4:]) == ["refused", {0: "forbidden"}]


def test_the_longest_name_fits() -> None:
    frame = encode_connect(Connect(host="a" * 253, port=65535))
    assert remaining_size(frame[:PREFIX_SIZE]) == len(frame) - PREFIX_SIZE
    assert decode_connect(frame[PREFIX_SIZE:]) == Connect(host="a" * 253, port=65535)


def test_every_answer_survives_the_wire() -> None:
    answers: list[Connected | Refused] = [Connected(), *(Refused(reason=reason) for reason in get_args(RefusalReason))]
    for answer in answers:
        assert decode_answer(encode_answer(answer)[PREFIX_SIZE:]) == answer


def test_a_frame_over_the_cap_is_refused_by_its_length_alone() -> None:
    assert remaining_size(BODY_MAX.to_bytes(4, "big")) == BODY_MAX
    with pytest.raises(Malformed) as caught:
        remaining_size((BODY_MAX + 1).to_bytes(4, "big"))
    assert caught.value.reason == "too_large"


def test_frames_cut_at_any_length_are_malformed() -> None:
    connect, refused = encode_connect(Connect(host="example.com", port=1))[4:], encode_answer(Refused(reason="timeout"))[4:]
    for size in range(len(connect)):
        with pytest.raises(Malformed):
            decode_connect(connect[:size])
    for size in range(len(refused)):
        with pytest.raises(Malformed):
            decode_answer(refused[:size])


@pytest.mark.parametrize(
    "host", ["", "a b", "a\0b", "a\n", "[::1]", "fe80::1%eth0", "b\u00fccher.example", "a" * 254, "user@host", "a/b"]
)
def test_a_host_that_is_neither_name_nor_address_is_refused_at_both_ends(host: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_connect(Connect(host=host, port=443))
    with pytest.raises(Malformed):
        decode_connect(cbor.encode(["connect", {0: host, 1: 443}]))


@pytest.mark.parametrize("port", [0, -1, 65536, True, "443", None])
def test_a_port_that_is_none_is_refused(port: object) -> None:
    with pytest.raises(Malformed):
        decode_connect(cbor.encode(["connect", {0: "a", 1: port}]))


@pytest.mark.parametrize(
    "value",
    [["connected", {}], ["connect", {0: "a", 1: 1, 2: 2}], ["connect", {0: "a"}], ["connect"], {}, ["connect", {0: b"a", 1: 1}]],
)
def test_anything_but_connect_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        decode_connect(cbor.encode(value))


@pytest.mark.parametrize(
    "value",
    [["connect", {0: "a", 1: 1}], ["connected", {0: 1}], ["refused", {}], ["refused", {0: "because"}], [], ["refused", {0: None}]],
)
def test_anything_but_an_answer_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        decode_answer(cbor.encode(value))


@given(st.binary(max_size=80))
def test_any_bytes_give_a_value_or_the_one_error(data: bytes) -> None:
    for decode in (decode_connect, decode_answer):
        with suppress(Malformed):
            assert decode(data) is not None
