"""Known secrets never leave in the form in which a program might write them by mistake, wherever its writes are cut."""

import base64
import json
import re
import sys
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.enclave.logs.forms import LEAST, forms
from runtime.enclave.logs.journal import JournalGate
from runtime.enclave.logs.masking import MaskedStream, Masks
from runtime.protocol.bundle import Secret, SecretValue
from tests.scenarios.leaks import find_leaks

PASSWORD = b'p@ss/w"ord\\1 ~\xc3\xa9<+>'
LABEL = b"[secret PASSWORD]"

Encoding = Callable[[bytes], bytes]


def masks(**values: bytes) -> Masks:
    return Masks({name: Secret(delivery="env", value=SecretValue(value)) for name, value in values.items()})


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def through(masks: Masks, parts: list[bytes]) -> bytes:
    stream = MaskedStream(masks)
    return b"".join(stream.feed(part) for part in parts) + stream.finish()


def lower(encoded: str) -> bytes:
    return re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), encoded).encode()


ENCODINGS: dict[str, Encoding] = {
    "raw": bytes,
    "hex": lambda value: value.hex().encode(),
    "HEX": lambda value: value.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 unpadded": lambda value: base64.b64encode(value).rstrip(b"="),
    "base64url": base64.urlsafe_b64encode,
    "base64url unpadded": lambda value: base64.urlsafe_b64encode(value).rstrip(b"="),
    "percent": lambda value: quote(value, safe="").encode(),
    "percent of paths": lambda value: quote(value).encode(),
    "percent, lower case": lambda value: lower(quote(value, safe="")),
    "percent of everything": lambda value: "".join(f"%{byte:02x}" for byte in value).encode(),
    "form": lambda value: quote_plus(value).encode(),
    "javascript": lambda value: quote(value, safe="!'()*").encode(),
}
TEXT_ENCODINGS: dict[str, Encoding] = {
    "json": lambda value: json.dumps(value.decode())[1:-1].encode(),
    "json, utf-8": lambda value: json.dumps(value.decode(), ensure_ascii=False)[1:-1].encode(),
    "json, slashes": lambda value: json.dumps(value.decode())[1:-1].replace("/", "\\/").encode(),
    "json, html": lambda value: json.dumps(value.decode())[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").encode(),
}


@pytest.mark.parametrize("encode", [*ENCODINGS.values(), *TEXT_ENCODINGS.values()], ids=[*ENCODINGS, *TEXT_ENCODINGS])
def test_every_encoding_is_found_at_every_split(encode: Encoding) -> None:
    found = masks(PASSWORD=PASSWORD)
    data = b"before " + encode(PASSWORD) + b" after"
    assert through(found, [data]) == b"before " + LABEL + b" after"
    for cut in range(len(data) + 1):
        assert through(found, [data[:cut], data[cut:]]) == b"before " + LABEL + b" after"
    assert through(found, [bytes((byte,)) for byte in data]) == b"before " + LABEL + b" after"


@given(
    secret=st.binary(min_size=LEAST, max_size=80),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    encode=st.sampled_from([*ENCODINGS.values()]),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
@example(secret=b"a" * 8, before=b"a", after=b"a", encode=bytes, cuts=[1, 4, 9])
def test_nothing_of_a_secret_is_found_in_what_leaves(
    secret: bytes, before: bytes, after: bytes, encode: Encoding, cuts: list[int]
) -> None:
    out = through(masks(IT=secret), chunks(encode(before + secret + after), cuts))
    assert b"[secret IT]" in out
    assert not any(form in out.replace(b"[secret IT]", b"\0") for form in forms(secret))


@given(st.text("ab[]: \n", max_size=60).map(str.encode), st.lists(st.integers(0, 60), max_size=6))
def test_what_holds_no_secret_passes_as_it_is(data: bytes, cuts: list[int]) -> None:
    assert through(masks(A=b"abababab-abab", B=b"b\na:a\nb b"), chunks(data, cuts)) == data
    assert through(Masks(), chunks(data, cuts)) == data


@given(
    st.lists(st.sampled_from([b"abcdefgh", b"defghijk", b"abcd", b"efgh", b"ijk", b"x", b"hijklmno"]), max_size=12),
    st.lists(st.integers(0, 80), max_size=8),
)
def test_secrets_that_overlap_come_out_the_same_however_they_are_read(words: list[bytes], cuts: list[int]) -> None:
    found = masks(A=b"abcdefgh", B=b"defghijk", C=b"hijklmno")
    data = b"".join(words)
    out = through(found, chunks(data, cuts))
    assert out == through(found, [data])
    assert not any(secret in out for secret in (b"abcdefgh", b"defghijk", b"hijklmno"))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=20),
    st.binary(min_size=LEAST, max_size=30).filter(lambda secret: b"." not in secret),
)
def test_what_comes_behind_a_skipped_beginning_is_no_end_of_a_secret(steps: list[tuple[bool, int]], secret: bytes) -> None:
    """Half a secret may be skipped; the other half must not go out because of that."""
    stream, left, out = MaskedStream(masks(IT=secret)), b"." + secret + b"." + secret + b".", b""
    for is_skipped, size in steps:
        part, left = left[:size], left[size:]
        if is_skipped:
            stream.skip(part)
        else:
            out += stream.feed(part)
    out += stream.feed(left) + stream.finish()
    assert out.replace(b"[secret IT]", b"").strip(b".") == b""


def test_a_long_secret_with_line_ends_is_one_label_in_every_form() -> None:
    key = (
        b"-----BEGIN KEY-----\n" + b"\n".join(base64.b64encode(bytes([line]) * 48) for line in range(80)) + b"\n-----END KEY-----\n"
    )
    found = masks(KEY=key)
    for encode in (bytes, base64.b64encode, bytes.hex, lambda value: json.dumps(value.decode()), quote):
        encoded = encode(key)
        data = encoded if isinstance(encoded, bytes) else encoded.encode()
        for size in (17, 1000, 4096, 1 << 20):
            out = through(found, [data[start : start + size] for start in range(0, len(data), size)])
            assert out.strip(b'"') == b"[secret KEY]"


def test_a_secret_of_a_file_is_found_without_its_last_line_end() -> None:
    assert masks(FILE=b"hunter2hunter2\n").mask(b"it is hunter2hunter2!") == b"it is [secret FILE]!"


def test_short_values_and_names_that_would_make_lines() -> None:
    assert masks(A=b"1234567").mask(b"1234567") == b"1234567"
    assert masks(**{"A\nB": b"12345678"}).mask(b"12345678") == b"[secret A?B]"


def test_a_secret_that_two_names_have_is_masked_once() -> None:
    assert masks(A=b"the same value", B=b"the same value").mask(b"the same value") == b"[secret A]"


def test_what_leaves_holds_nothing_that_a_search_of_another_hand_finds() -> None:
    secret = bytes(range(200, 240))
    data = b"".join(encode(bytes(shift) + secret) + b"\n" for encode in ENCODINGS.values() for shift in range(4))
    assert find_leaks([data], {"IT": secret}) == ["IT"]
    assert find_leaks([masks(IT=secret).mask(data)], {"IT": secret}) == []


def test_only_the_possible_beginning_of_a_secret_waits() -> None:
    stream = MaskedStream(masks(A=b"correct horse"))
    assert stream.feed(b"all correct\nnot corr") == b"all correct\nnot "
    assert stream.feed(b"upt, ") == b"corrupt, "
    assert stream.feed(b"correct hors") == b""
    assert stream.finish() == b"correct hors"


def test_a_text_of_the_journal_is_masked_and_never_ends_in_half_a_secret() -> None:
    gate = JournalGate()
    gate.masks = masks(PASSWORD=PASSWORD)
    assert gate.masked("GET /?" + PASSWORD.decode()) == "GET /?" + LABEL.decode()
    assert gate.masked(b"\xff" + PASSWORD) == b"\xff" + LABEL
    cut = ("x" * 190 + PASSWORD.decode())[:200]
    assert gate.masked(cut) == "x" * 190
    assert gate.masked("p@ss/w") == "p@ss/w"
    assert gate.masked("lone \udcff") == "lone \udcff"
    assert gate.masked(7) == 7


CHUNK = 16 * 1024
"""A quarter of what is read and masked at once (process/customer.py)."""
COMMON = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ"


def work(found: Masks, text: bytes, size: int = CHUNK) -> int:
    """How many functions are called, of Python's and of C's, to mask a chunk that is this text over and over, fed in parts of `size`."""
    chunk = (text * (1 + CHUNK // len(text)))[:CHUNK]
    stream = MaskedStream(found)
    stream.feed(chunk)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        for start in range(0, CHUNK, size):
            stream.feed(chunk[start : start + size])
    finally:
        sys.setprofile(before)
    return calls


ALIKE: dict[str, tuple[Callable[[int], bytes], tuple[bytes, ...]]] = {
    "they begin alike": (
        lambda number: COMMON + b"%09d" % number,
        (COMMON, COMMON[:40], COMMON[28:32], COMMON[-4:], COMMON + b"%09d" % 7, b"GET / 200\n"),
    ),
    "each begins with the one before": (lambda number: b"a" * (8 + number), (b"a", b"a" * 1000 + b"b", b"aaaab", b"GET / 200\n")),
    "each but its end begins with the one before": (lambda number: b"a" * (8 + number) + b"x", (b"a", b"ax", b"aaaaaaaaaab")),
    "of two letters": (
        lambda number: f"{number * 2654435761 % 2**32:032b}".translate({48: "a", 49: "b"}).encode(),
        (b"ab", b"aaab", b"abbabaab", b"b"),
    ),
}


@pytest.mark.parametrize("alike", ALIKE)
def test_to_mask_a_chunk_is_no_more_work_for_many_secrets_than_for_few_however_alike_they_are(alike: str) -> None:
    make, texts = ALIKE[alike]
    few, many = (masks(**{f"S{number}": make(number) for number in range(count)}) for count in (40, 400))
    for text in texts:
        assert work(many, text) <= 4 * work(few, text) + 1000, text
        assert work(many, text) <= 25 * CHUNK, text


@pytest.mark.parametrize("text", [b"a", b"a" * 700 + b"b", b"aaaaaaab", b"x"])
def test_what_comes_byte_by_byte_is_looked_at_a_bounded_number_of_times(text: bytes) -> None:
    found = masks(**{f"S{number}": b"a" * (8 + 10 * number) for number in range(100)})
    assert work(found, text, 1) <= 150 * CHUNK


@given(
    st.lists(st.text("ab", min_size=8, max_size=20).map(str.encode), min_size=1, max_size=12, unique=True),
    st.text("ab", max_size=200).map(str.encode),
)
def test_of_secrets_that_begin_alike_each_is_found_and_nothing_else(values: list[bytes], data: bytes) -> None:
    found = masks(**{f"S{number}": value for number, value in enumerate(values)})
    covered = set()
    for value in values:
        for start in range(len(data)):
            if data.startswith(value, start):
                covered |= set(range(start, start + len(value)))
    assert {place for each in found.find(data) for place in range(each.start, each.end)} == covered
