"""Batches of lines sealed to an operator's key: they open with that key, in their place, and as they were made."""

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.link import Sealed, encode_message
from runtime.protocol.link_values import LINE_MAX, SEALED_LINES_MAX, SEALED_MAX
from runtime.protocol.sealed_logs import (
    BATCH_SIZE,
    SEED_SIZES,
    Batch,
    LogLine,
    LogRecipient,
    log_key,
    open_batch,
    read_log_key,
    write_log_key,
)
from runtime.protocol.sealing import SealingKey, Suite

SEEDS = {suite: os.urandom(size) for suite, size in SEED_SIZES.items()}
KEYS = {suite: log_key(suite, seed) for suite, seed in SEEDS.items()}
BOOT_ID = b"B" * 16
TOKEN = b"T" * 16
LINES = (
    LogLine(process="app", stream="stdout", data=b"\x00\xff not text", dropped=3),
    LogLine(process="cache", stream="stderr", data=b"", is_partial=True),
)
BATCH = Batch(token=TOKEN, number=7, lines=LINES, is_last=True)
each_suite = pytest.mark.parametrize("suite", list(KEYS), ids=lambda suite: suite.name)


def recipient(key: SealingKey) -> LogRecipient:
    return LogRecipient(key.suite, key.public)


@each_suite
def test_a_batch_opens_with_its_key_in_its_place_alone(suite: Suite) -> None:
    key = KEYS[suite]
    sealed = recipient(key).seal(BATCH, boot_id=BOOT_ID, sequence=12)
    assert b"not text" not in sealed
    assert open_batch(key, sealed, boot_id=BOOT_ID, sequence=12) == BATCH
    others = [
        (sealed, BOOT_ID, 13),
        (sealed, b"C" * 16, 12),
        (sealed[:-1] + bytes((sealed[-1] ^ 1,)), BOOT_ID, 12),
        (b"", BOOT_ID, 12),
    ]
    for data, boot_id, sequence in others:
        with pytest.raises(Refused) as refused:
            open_batch(key, data, boot_id=boot_id, sequence=sequence)
        assert refused.value.reason == "seal_broken"
    with pytest.raises(Refused):
        open_batch(log_key(suite, os.urandom(SEED_SIZES[suite])), sealed, boot_id=BOOT_ID, sequence=12)


@each_suite
def test_keys_survive_their_files(suite: Suite) -> None:
    key = KEYS[suite]
    written = write_log_key(suite, SEEDS[suite])
    assert read_log_key(f"{written}\n").public == key.public
    assert LogRecipient.parse(str(recipient(key))) == recipient(key)
    assert written not in repr(read_log_key(written))


NOT_A_POINT = "x25519:" + "A" * 43 + "="
SMALL_ORDER = "x25519:4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA="


@pytest.mark.parametrize("written", ["", "x25519:", "x25519:AAAA", "p256:" + "A" * 88, "x25519:***", NOT_A_POINT, SMALL_ORDER])
def test_what_is_no_key_to_seal_to_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        LogRecipient.parse(written)
    with pytest.raises(ValueError, match="must be"):
        read_log_key(written)


def test_a_key_file_is_never_taken_for_a_public_key() -> None:
    with pytest.raises(ValueError, match="must be"):
        LogRecipient.parse(write_log_key(Suite.X25519, SEEDS[Suite.X25519]))


@each_suite
def test_the_largest_batch_fits_into_a_message(suite: Suite) -> None:
    many = [LogLine(process="p" * 64, stream="stdout", data=b"", dropped=2**64 - 1)] * 80
    lines = (*many, LogLine(process="p" * 64, stream="stderr", data=bytes(BATCH_SIZE - 1)))
    batch = Batch(token=TOKEN, number=2**64 - 1, lines=(*lines, LogLine(process="p" * 64, stream="stderr", data=bytes(LINE_MAX))))
    sealed = recipient(KEYS[suite]).seal(batch, boot_id=BOOT_ID, sequence=1)
    assert len(sealed) <= SEALED_MAX
    assert encode_message(Sealed(sequence=1, sealed=sealed, lines=len(batch.lines)))
    assert open_batch(KEYS[suite], sealed, boot_id=BOOT_ID, sequence=1) == batch


LINE = ["app", "stdout", 0, False, b"x"]
WHOLE: dict[int, object] = {0: TOKEN, 1: 7, 2: [LINE], 3: False}
WRONG: list[object] = [
    [],
    WHOLE | {0: bytes(15)},
    WHOLE | {1: 0},
    WHOLE | {2: [["app", "stdout", 0, False]]},
    WHOLE | {2: [["app", "stdin", 0, False, b"x"]]},
    WHOLE | {2: [["app", "stdout", -1, False, b"x"]]},
    WHOLE | {2: [["app", "stdout", 0, 0, b"x"]]},
    WHOLE | {2: [["", "stdout", 0, False, b"x"]]},
    WHOLE | {2: [["app", "stdout", 0, False, "x"]]},
    WHOLE | {2: [LINE] * (SEALED_LINES_MAX + 1)},
    WHOLE | {3: 1},
    WHOLE | {4: 0},
    {0: TOKEN, 1: 7, 2: []},
]


@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_a_batch_of_another_shape_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        Batch.decode(cbor.encode(value))


def test_a_batch_cut_at_any_length_is_malformed() -> None:
    plaintext = BATCH.encode()
    assert Batch.decode(plaintext) == BATCH
    for size in range(len(plaintext)):
        with pytest.raises(Malformed):
            Batch.decode(plaintext[:size])


@given(st.binary(max_size=300))
def test_any_plaintext_gives_a_batch_or_the_one_error(data: bytes) -> None:
    with suppress(Malformed):
        assert Batch.decode(data).encode() == data
