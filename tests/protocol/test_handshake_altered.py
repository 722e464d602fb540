"""A release on its way through a hostile parent: altered in any byte, cut at any length, spliced with another one, it opens nothing."""

from collections.abc import Iterator

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.errors import LocalProtocolError, Malformed, Refused
from runtime.protocol.handshake import State
from runtime.protocol.release import UnverifiedRelease
from runtime.protocol.sealing import Suite
from tests.protocol.handshakes import NOW, Proven, Start, of_suite, proven, statement

EACH = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
FORMAT = {"malformed", "truncated", "trailing_bytes", "too_deep", "too_large"}
"""Reasons of bytes that cannot be read; those of the codec beside these begin with "cbor_"."""


def reason_of(mine: Proven, data: bytes) -> str:
    handshake = mine.fresh()
    with pytest.raises((Malformed, Refused)) as refused:
        handshake.receive_release(data, key=mine.key, now=NOW, last_bundle_version=0)
    assert handshake.state is State.FAILED
    return refused.value.reason


def is_of_the_format(reason: str) -> bool:
    return reason in FORMAT or reason.startswith("cbor_")


def altered(data: bytes, positions: range) -> Iterator[bytes]:
    """`data` with one byte changed in its lowest, a middle and its highest bit, at each position."""
    for position in positions:
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= bit
            yield bytes(changed)


def place(data: bytes, part: bytes) -> range:
    start = data.index(part)
    assert data.count(part) == 1
    return range(start, start + len(part))


@EACH
def test_every_byte_of_the_sealed_bundle_is_signed(suite: Suite) -> None:
    mine = proven(of_suite(suite))
    release = mine.release()
    for data in altered(release, place(release, UnverifiedRelease.decode(release).sealed)[:: 7 if suite is Suite.X_WING else 1]):
        assert reason_of(mine, data) == "bad_signature"


def test_every_byte_of_the_signature_counts() -> None:
    mine = proven()
    release = mine.release()
    assert {reason_of(mine, data) for data in altered(release, range(len(release) - 64, len(release)))} == {"bad_signature"}


def test_every_byte_of_the_statement_counts() -> None:
    mine = proven()
    release = mine.release()
    reasons = {reason_of(mine, data) for data in altered(release, place(release, statement()))}
    assert "key_not_pinned" in reasons
    assert all(reason == "key_not_pinned" or is_of_the_format(reason) for reason in reasons)


def test_every_byte_of_the_header_counts() -> None:
    mine = proven()
    release = mine.release()
    header = cbor.encode(UnverifiedRelease.decode(release).header.to_value())
    before_statement = place(release, header[: header.index(statement())])
    reasons = {reason_of(mine, data) for data in altered(release, before_statement)}
    assert "bad_signature" in reasons
    assert all(reason == "bad_signature" or is_of_the_format(reason) for reason in reasons)


def test_every_byte_of_the_envelope_counts() -> None:
    mine = proven()
    release = mine.release()
    sealed = place(release, UnverifiedRelease.decode(release).sealed)
    vouched = place(release, statement())
    around = [range(vouched.start), range(vouched.stop, sealed.start), range(sealed.stop, len(release) - 64)]
    for positions in around:
        for data in altered(release, positions):
            reason = reason_of(mine, data)
            assert reason == "bad_signature" or is_of_the_format(reason)


def test_a_release_cut_at_any_length_or_lengthened_opens_nothing() -> None:
    mine = proven()
    release = mine.release()
    for length in range(len(release)):
        assert reason_of(mine, release[:length]) == "truncated"
    assert reason_of(mine, release + b"\0") == "trailing_bytes"


def test_the_parts_of_two_releases_for_one_handshake_do_not_mix() -> None:
    """Both are the provisioner's own and for this very transcript; each seal is for its own header all the same."""
    mine = proven()
    one, other = (UnverifiedRelease.decode(mine.release(changes={"lease_id": lease})) for lease in (b"\x01" * 16, b"\x02" * 16))
    protected, _, _, signature = cbor2.loads(one.data)
    payload = cbor.encode({0: one.header.to_value(), 1: other.sealed})
    assert reason_of(mine, cbor.encode([protected, {}, payload, signature])) == "bad_signature"
    assert reason_of(mine, mine.release(changes={"lease_id": b"\x01" * 16}, header_digest=other.header_digest)) == "seal_broken"


def test_a_provisioners_error_in_the_place_of_a_release_is_malformed() -> None:
    mine = proven()
    assert is_of_the_format(reason_of(mine, cbor.encode({0: "refused", 1: "0123456789abcdef"})))
    assert is_of_the_format(reason_of(mine, b""))


@given(st.binary(max_size=400))
def test_any_bytes_end_the_handshake(data: bytes) -> None:
    assert is_of_the_format(reason_of(proven(), data))


def test_a_release_that_was_opened_opens_in_no_later_handshake() -> None:
    mine = proven()
    release, handshake = mine.release(), mine.fresh()
    handshake.receive_release(release, key=mine.key, now=NOW, last_bundle_version=0)
    with pytest.raises(LocalProtocolError):
        handshake.receive_release(release, key=mine.key, now=NOW, last_bundle_version=0)
    assert reason_of(proven(of_suite(Suite.P256)), release) == "bad_signature"
    assert reason_of(proven(Start(nonce=b"\x0f" * 32)), release) == "bad_signature"
