"""Frames: the same whole, byte by byte and cut anywhere; bounded before anything is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.cbor import Value
from runtime.protocol.errors import LocalProtocolError, Malformed
from runtime.protocol.framing import FRAME_MAX, FrameDecoder, encode_frame

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def frames_of(decoder: FrameDecoder) -> list[Value]:
    found: list[Value] = []
    while frame := decoder.next_frame():
        found.append(frame[0])
    return found


@given(st.lists(VALUES, max_size=4), st.data())
def test_frames_come_out_however_the_stream_was_cut(values: list[Any], data: st.DataObject) -> None:
    stream = b"".join(map(encode_frame, values))
    decoder = FrameDecoder()
    found: list[Value] = []
    position = 0
    while position < len(stream):
        size = data.draw(st.integers(1, len(stream) - position))
        decoder.receive_data(stream[position : position + size])
        position += size
        found += frames_of(decoder)
    assert found == values
    assert decoder.is_empty


def test_a_frame_of_null_is_told_from_no_frame() -> None:
    decoder = FrameDecoder()
    assert decoder.next_frame() is None
    decoder.receive_data(encode_frame(None))
    assert decoder.next_frame() == (None,)
    assert decoder.next_frame() is None


def test_a_length_over_the_limit_is_refused_before_its_bytes_are_there() -> None:
    for size in (FRAME_MAX + 1, 2**32 - 1):
        decoder = FrameDecoder()
        decoder.receive_data(size.to_bytes(4, "big"))
        with pytest.raises(Malformed) as refused:
            decoder.next_frame()
        assert refused.value.reason == "too_large"


def test_a_frame_of_the_largest_size_passes_and_a_larger_one_is_our_own_mistake() -> None:
    largest = bytes(FRAME_MAX - 3)
    decoder = FrameDecoder()
    decoder.receive_data(encode_frame(largest))
    assert decoder.next_frame() == (largest,)
    with pytest.raises(LocalProtocolError):
        encode_frame(bytes(FRAME_MAX - 2))


@pytest.mark.parametrize("body", [b"", b"\x00\x00", b"\x18\x00", b"\x9f\xff", b"\xf7", b"\xc0\x00"])
def test_a_body_that_is_not_one_deterministic_item_is_refused(body: bytes) -> None:
    decoder = FrameDecoder()
    decoder.receive_data(len(body).to_bytes(4, "big") + body)
    with pytest.raises(Malformed):
        decoder.next_frame()


def test_part_of_a_frame_is_not_a_place_to_end() -> None:
    decoder = FrameDecoder()
    for byte in encode_frame(["hello", {0: 1}])[:-1]:
        decoder.receive_data(bytes((byte,)))
        assert decoder.next_frame() is None
        assert not decoder.is_empty


def test_what_follows_the_last_frame_is_handed_over_once() -> None:
    decoder = FrameDecoder()
    decoder.receive_data(encode_frame("connected") + b"raw \x00 bytes")
    assert decoder.next_frame() == ("connected",)
    assert decoder.leftover() == b"raw \x00 bytes"
    assert decoder.is_empty
    assert decoder.leftover() == b""
