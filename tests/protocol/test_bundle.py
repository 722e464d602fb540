"""What a release carries: legal bundles read back, all others are `Malformed`, and no secret is ever shown by accident."""

import logging
import traceback
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.bundle import BUNDLE_MAX, Bundle, DeliveredIdentity, Secret, SecretValue
from runtime.protocol.errors import Malformed
from tests.protocol.prov_messages import UINT, octets, text

KEY = b"\x4b" * 32
WHOLE: dict[int, Any] = {
    0: 7,
    1: KEY,
    2: {"API_KEY": {0: "env", 1: b"value"}, "TOKEN": {0: "file", 1: b"\0\1", 2: "token.bin", 3: 0o440}},
    3: [{0: ["pay.example.com"], 1: [b"leaf", b"issuer"], 2: b"key"}, {0: ["www.example.com"], 1: [b"leaf"]}],
    4: b"\x52" * 32,
}
FILE_NAMES = text(1, 128).filter(lambda name: not {"/", "\0"} & set(name) and name not in {".", ".."})
SECRETS = st.builds(
    Secret,
    delivery=st.just("env"),
    value=st.builds(SecretValue, st.binary(max_size=60).map(lambda value: value.replace(b"\0", b"0"))),
) | st.builds(
    Secret,
    delivery=st.just("file"),
    value=st.builds(SecretValue, st.binary(max_size=60)),
    file_name=FILE_NAMES,
    file_mode=st.integers(0, 0o777),
)
IDENTITIES = st.builds(
    DeliveredIdentity,
    names=st.lists(text(1, 40), min_size=1, max_size=3).map(tuple),
    chain=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=3).map(tuple),
    key=st.none() | st.builds(SecretValue, st.binary(min_size=1, max_size=40)),
)
BUNDLES = st.builds(
    Bundle,
    version=UINT,
    lease_key=st.builds(SecretValue, octets(32)),
    secrets=st.dictionaries(text(1, 30), SECRETS, max_size=4),
    identities=st.lists(IDENTITIES, max_size=3).map(tuple),
    root_key=st.none() | st.builds(SecretValue, octets(32)),
)


@given(BUNDLES)
def test_every_legal_bundle_reads_back(bundle: Bundle) -> None:
    assert Bundle.decode(bundle.encode()) == bundle


def test_the_encoding_is_the_map_of_the_specification() -> None:
    encoded = cbor2.dumps(WHOLE, canonical=True)
    bundle = Bundle.decode(encoded)
    assert bundle.encode() == encoded
    assert (bundle.version, bundle.lease_key.reveal()) == (7, KEY)
    assert bundle.secrets["API_KEY"] == Secret(delivery="env", value=SecretValue(b"value"))
    token = Secret(delivery="file", value=SecretValue(b"\0\1"), file_name="token.bin", file_mode=0o440)
    assert bundle.secrets["TOKEN"] == token
    own, delivered = bundle.identities[1], bundle.identities[0]
    assert (own.names, own.chain, own.key) == (("www.example.com",), (b"leaf",), None)
    assert delivered.key == SecretValue(b"key")
    assert bundle.root_key == SecretValue(b"\x52" * 32)


def test_a_file_without_a_mode_is_for_its_owner_to_read() -> None:
    bundle = Bundle.decode(cbor.encode(WHOLE | {2: {"TOKEN": {0: "file", 1: b"", 2: "token"}}}))
    assert bundle.secrets["TOKEN"].file_mode == 0o400


def secret(**fields: Any) -> dict[int, Any]:
    return {2: {"S": {int(key[1:]): value for key, value in fields.items()}}}


def identity(**fields: Any) -> dict[int, Any]:
    return {3: [{int(key[1:]): value for key, value in fields.items()}]}


WRONG: dict[str, dict[int, Any]] = {
    "version negative": {0: -1},
    "version a bool": {0: True},
    "lease key of 31 bytes": {1: bytes(31)},
    "lease key of 33 bytes": {1: bytes(33)},
    "lease key as text": {1: "k" * 32},
    "secrets no map": {2: []},
    "secret without a name": {2: {"": {0: "env", 1: b""}}},
    "secret's name a number": {2: {1: {0: "env", 1: b""}}},
    "secret's name too long": {2: {"x" * 129: {0: "env", 1: b""}}},
    "secret no map": {2: {"S": b"value"}},
    "secret without a delivery": secret(_1=b""),
    "secret without a value": secret(_0="env"),
    "delivery unknown": secret(_0="fifo", _1=b""),
    "value as text": secret(_0="env", _1="value"),
    "value null": secret(_0="env", _1=None),
    "variable with a NUL": secret(_0="env", _1=b"a\0b"),
    "variable with a file name": secret(_0="env", _1=b"", _2="name"),
    "variable with a mode": secret(_0="env", _1=b"", _3=0o400),
    "file without a name": secret(_0="file", _1=b""),
    "file with an empty name": secret(_0="file", _1=b"", _2=""),
    "file name with a slash": secret(_0="file", _1=b"", _2="../etc/passwd"),
    "file name absolute": secret(_0="file", _1=b"", _2="/a"),
    "file name with a NUL": secret(_0="file", _1=b"", _2="a\0b"),
    "file name a dot": secret(_0="file", _1=b"", _2="."),
    "file name two dots": secret(_0="file", _1=b"", _2=".."),
    "file name too long": secret(_0="file", _1=b"", _2="x" * 129),
    "file mode with set-uid": secret(_0="file", _1=b"", _2="a", _3=0o4755),
    "file mode over 0777": secret(_0="file", _1=b"", _2="a", _3=0o1000),
    "file mode negative": secret(_0="file", _1=b"", _2="a", _3=-1),
    "secret with an unknown field": secret(_0="env", _1=b"", _4=0),
    "identities no array": {3: {}},
    "too many identities": {3: [{0: ["a"], 1: [b"c"]}] * 17},
    "identity no map": {3: [b"chain"]},
    "identity without names": identity(_0=[], _1=[b"leaf"]),
    "identity with an empty name": identity(_0=[""], _1=[b"leaf"]),
    "identity with a long name": identity(_0=["x" * 254], _1=[b"leaf"]),
    "identity without a chain": identity(_0=["a"], _1=[]),
    "identity with an empty certificate": identity(_0=["a"], _1=[b""]),
    "identity with a chain of nine": identity(_0=["a"], _1=[b"c"] * 9),
    "identity with a large certificate": identity(_0=["a"], _1=[bytes(16385)]),
    "identity with an empty key": identity(_0=["a"], _1=[b"c"], _2=b""),
    "identity with a null key": identity(_0=["a"], _1=[b"c"], _2=None),
    "identity with an unknown field": identity(_0=["a"], _1=[b"c"], _3=b""),
    "root key of 31 bytes": {4: bytes(31)},
    "root key null": {4: None},
    "an unknown field": {5: 0},
    "a field that a header would ignore": {64: 0},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=list(WRONG))
def test_another_shape_is_malformed(change: dict[int, Any]) -> None:
    with pytest.raises(Malformed) as refused:
        Bundle.decode(cbor.encode(WHOLE | change))
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize("key", [0, 1, 2, 3])
def test_every_field_but_the_root_key_is_required(key: int) -> None:
    with pytest.raises(Malformed):
        Bundle.decode(cbor.encode({name: value for name, value in WHOLE.items() if name != key}))
    assert Bundle.decode(cbor.encode({name: value for name, value in WHOLE.items() if name != 4})).root_key is None


def test_a_bundle_cut_at_any_length_is_malformed() -> None:
    encoded = cbor.encode(WHOLE)
    for length in range(len(encoded)):
        with pytest.raises(Malformed) as refused:
            Bundle.decode(encoded[:length])
        assert refused.value.reason == "truncated"


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: cbor.encode(WHOLE)[:40] + tail))
def test_any_bytes_give_a_bundle_or_malformed(data: bytes) -> None:
    try:
        bundle = Bundle.decode(data)
    except Malformed:
        return
    assert Bundle.decode(bundle.encode()) == bundle


def test_a_bundle_may_have_a_mebibyte_and_no_byte_more() -> None:
    def sized(length: int) -> bytes:
        return Bundle(
            version=1,
            lease_key=SecretValue(KEY),
            secrets={"BIG": Secret(delivery="env", value=SecretValue(b"x" * length))},
            identities=(),
        ).encode()

    room = BUNDLE_MAX - len(sized(70_000)) + 70_000
    assert len(Bundle.decode(sized(room)).secrets["BIG"].value.reveal()) == room
    with pytest.raises(Malformed) as refused:
        Bundle.decode(sized(room + 1))
    assert refused.value.reason == "too_large"


PLAIN = b"correct horse battery staple"
WORD = PLAIN.decode()
HELD = Bundle(
    version=1,
    lease_key=SecretValue(PLAIN),
    secrets={"NAME": Secret(delivery="env", value=SecretValue(PLAIN))},
    identities=(DeliveredIdentity(names=("a.example",), chain=(b"c",), key=SecretValue(PLAIN)),),
    root_key=SecretValue(PLAIN),
)


def is_told(shown: str) -> bool:
    """Whether a text shows the secret, as it is, escaped or in hex."""
    return any(form in shown for form in (WORD, WORD[:8], PLAIN.hex(), PLAIN.hex()[:16]))


@pytest.mark.parametrize(
    "holder", [HELD.lease_key, HELD.secrets["NAME"], HELD.identities[0], HELD], ids=lambda held: type(held).__name__
)
def test_no_formatting_shows_a_secret(holder: object, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("the value is %s and %r", holder, holder)
    forms = [str(holder), repr(holder), f"{holder}", f"{holder!r}", f"{holder!a}", f"{holder!s:>80}", f"{[holder]}", caplog.text]
    assert [form for form in forms if is_told(form)] == []
    assert "not shown" in repr(holder)


def test_no_traceback_shows_a_secret_even_with_the_local_variables() -> None:
    def fails(value: SecretValue) -> None:
        kept = HELD
        raise ValueError(f"cannot use {value} of {kept}")

    try:
        fails(HELD.lease_key)
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    else:
        pytest.fail("nothing was raised")
    assert "value = SecretValue(not shown)" in shown
    assert not is_told(shown)


def test_a_malformed_bundle_is_refused_without_a_word_of_its_secrets() -> None:
    for wrong in (secret(_0="env", _1=PLAIN + b"\0"), secret(_0=WORD, _1=b""), {1: PLAIN}, {4: PLAIN}):
        with pytest.raises(Malformed) as refused:
            Bundle.decode(cbor.encode(WHOLE | wrong))
        shown = "".join(traceback.format_exception(refused.value))
        assert not is_told(str(refused.value))
        assert not is_told(shown)


def test_a_secret_equals_its_own_value_alone_and_has_no_attribute_table() -> None:
    assert SecretValue(PLAIN) == SecretValue(PLAIN)
    assert SecretValue(PLAIN) != SecretValue(PLAIN + b"!")
    assert SecretValue(PLAIN) != PLAIN
    assert len({SecretValue(PLAIN), SecretValue(PLAIN)}) == 1
    assert not hasattr(SecretValue(PLAIN), "__dict__")
