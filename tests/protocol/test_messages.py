"""The messages of PROV/1: what is legal reads back, and every other size, type, field and byte is `Malformed` and nothing else."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.errors import Malformed
from runtime.protocol.messages import CSR_MAX, DOCUMENT_MAX, HPKE_KEY_MAX, Evidence, Hello, one_of
from tests.protocol.prov_messages import BY_NAME, HELLO_FIELDS, KINDS, Kind

EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.message.__name__)
HUGE = 2**64
"""One more than any integer on the wire; its encoding is a tag."""


def refuse(kind: Kind, value: object) -> str:
    """The reason for which a value of cbor2's making is refused."""
    with pytest.raises(Malformed) as refused:
        kind.message.decode(cbor2.dumps(value, canonical=True))
    return refused.value.reason


@EACH
@given(data=st.data())
def test_every_legal_message_reads_back(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(kind.values)
    assert kind.message.decode(message.encode()) == message


@EACH
def test_the_encoding_is_the_map_of_the_specification(kind: Kind) -> None:
    """The CDDL's integers as keys, in another implementation's deterministic CBOR."""
    encoded = cbor2.dumps(kind.fields, canonical=True)
    assert kind.message.decode(encoded).encode() == encoded


@EACH
def test_a_field_that_is_missing_is_refused_unless_it_is_optional(kind: Kind) -> None:
    for key in kind.fields:
        lacking = {name: value for name, value in kind.fields.items() if name != key}
        if key in kind.optional:
            kind.message.decode(cbor2.dumps(lacking, canonical=True))
        else:
            assert refuse(kind, lacking) == "malformed"


@EACH
@pytest.mark.parametrize("key", [9, 63, 64, 255, -1, "0", b"0", ""], ids=repr)
def test_an_unknown_field_is_refused(kind: Kind, key: Any) -> None:
    assert refuse(kind, kind.fields | {key: 0}) == "malformed"


@EACH
def test_a_field_of_another_type_is_refused(kind: Kind) -> None:
    """A boolean is no integer; what is wrong with a value of the right type is the table of bounds' matter."""
    others: list[Any] = [None, True, False, 0, -1, "x" * 16, b"x" * 16, [], [0], {}, {0: 0}]
    for key, right in kind.fields.items():
        for other in others:
            if type(other) is not type(right):
                assert refuse(kind, kind.fields | {key: other}) == "malformed", (key, other)


@EACH
@pytest.mark.parametrize("value", [None, True, 0, "hello", b"", [], [[0, 1]], {}], ids=repr)
def test_what_is_no_map_of_fields_is_refused(kind: Kind, value: Any) -> None:
    assert refuse(kind, value) == "malformed"


@EACH
def test_a_message_cut_at_any_length_is_refused(kind: Kind) -> None:
    encoded = cbor2.dumps(kind.fields, canonical=True)
    for length in range(len(encoded)):
        with pytest.raises(Malformed) as refused:
            kind.message.decode(encoded[:length])
        assert refused.value.reason == "truncated"


@EACH
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_value_or_malformed(kind: Kind, data: bytes) -> None:
    try:
        message = kind.message.decode(data)
    except Malformed:
        return
    assert message.encode() == data


@EACH
@given(data=st.data())
def test_a_legal_message_with_any_byte_changed_gives_a_value_or_malformed(kind: Kind, data: st.DataObject) -> None:
    altered = bytearray(cbor2.dumps(kind.fields, canonical=True))
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = kind.message.decode(bytes(altered))
    except Malformed:
        return
    assert message.encode() == bytes(altered)


@EACH
def test_only_the_deterministic_encoding_is_read(kind: Kind) -> None:
    encoded = cbor2.dumps(kind.fields, canonical=True)
    first = cbor2.dumps(kind.fields[0], canonical=True)
    head, body = encoded[:1], encoded[1:]
    wrong = {
        "trailing_bytes": encoded + b"\0",
        "cbor_indefinite": b"\xbf" + body + b"\xff",
        "cbor_duplicate_key": bytes((head[0] + 1,)) + b"\x00" + first + body,
        "cbor_not_deterministic": head + b"\x18\x00" + body[1:],
        "cbor_tag": b"\xc1" + encoded,
    }
    for reason, data in wrong.items():
        with pytest.raises(Malformed) as refused:
            kind.message.decode(data)
        assert refused.value.reason == reason


@EACH
def test_keys_out_of_order_are_refused(kind: Kind) -> None:
    backwards = dict(reversed(kind.fields.items()))
    with pytest.raises(Malformed) as refused:
        kind.message.decode(cbor2.dumps(backwards))
    assert refused.value.reason == "cbor_not_deterministic"


@EACH
def test_a_message_over_sixteen_kibibytes_is_refused_unread(kind: Kind) -> None:
    with pytest.raises(Malformed) as refused:
        kind.message.decode(b"\xff" * (16 * 1024 + 1))
    assert refused.value.reason == "too_large"


SIZES = [
    ("TicketRequest", 0, "x" * 128, ["", "x" * 129]),
    ("TicketRequest", 1, "x" * 64, ["", "x" * 65]),
    ("TicketReply", 0, bytes(32), [b"", bytes(31), bytes(33)]),
    ("TicketReply", 1, 86400, [86401, -1, HUGE]),
    ("Hello", 0, [0] * 16, [[], [0] * 17, [256], [-1], ["1"], [True], [None], [[1]]]),
    ("Hello", 1, [255] * 16, [[], [1] * 17, [256], [-1], [b""], [False], [{}]]),
    ("Hello", 2, bytes(32), [bytes(31), bytes(33)]),
    ("Hello", 3, bytes(32), [bytes(31), bytes(33)]),
    ("Hello", 4, bytes(48), [bytes(32), bytes(47), bytes(49)]),
    ("Hello", 5, bytes(16), [bytes(15), bytes(17)]),
    ("Hello", 6, "renew", ["", "Renew", "renewal", "live"]),
    ("Hello", 7, "x" * 64, ["x" * 65]),
    ("Hello", 8, bytes(16), [bytes(15), bytes(17)]),
    ("Challenge", 0, 255, [256, -1, HUGE]),
    ("Challenge", 1, 255, [256, -1]),
    ("Challenge", 2, bytes(16), [bytes(15), bytes(17)]),
    ("Challenge", 3, bytes(32), [bytes(31), bytes(33)]),
    ("Challenge", 4, 60, [61, 2**64 - 1]),
    ("Challenge", 5, "x" * 128, ["", "x" * 129]),
    ("Evidence", 0, bytes(16), [bytes(15), bytes(17)]),
    ("Evidence", 1, bytes(DOCUMENT_MAX), [b"", bytes(DOCUMENT_MAX + 1)]),
    ("Evidence", 2, bytes(HPKE_KEY_MAX), [b"", bytes(HPKE_KEY_MAX + 1)]),
    ("Evidence", 3, bytes(CSR_MAX), [b"", bytes(CSR_MAX + 1)]),
    ("Evidence", 4, bytes(48), [bytes(47), bytes(49)]),
    ("Confirm", 0, bytes(16), [bytes(15), bytes(17)]),
    ("Confirm", 1, "failed", ["", "Live", "dead"]),
    ("Confirm", 2, bytes(48), [bytes(47), bytes(49)]),
    ("ProvError", 0, "internal", ["", "Busy", "ticket_unknown"]),
    ("ProvError", 1, "x" * 64, ["x" * 65]),
    ("ProvError", 2, 86400, [86401, -1]),
]


@pytest.mark.parametrize(("name", "key", "right", "wrong"), SIZES, ids=[f"{name}.{key}" for name, key, *_ in SIZES])
def test_a_field_at_its_bound_is_read_and_one_beyond_it_is_refused(name: str, key: int, right: Any, wrong: list[Any]) -> None:
    kind = BY_NAME[name]
    encoded = cbor2.dumps(kind.fields | {key: right}, canonical=True)
    assert kind.message.decode(encoded).encode() == encoded
    for value in wrong:
        assert refuse(kind, kind.fields | {key: value}) in {"malformed", "cbor_tag"}


@pytest.mark.parametrize(
    "fields",
    [
        HELLO_FIELDS | {6: "setup", 8: bytes(16)},
        HELLO_FIELDS | {6: "renew"},
        HELLO_FIELDS | {6: "setup", 8: b""},
        HELLO_FIELDS | {6: "renew", 8: None},
    ],
    ids=["setup with a lease", "renew without one", "setup with an empty one", "renew with null"],
)
def test_a_previous_lease_goes_with_renewal_always_and_only(fields: dict[int, Any]) -> None:
    assert refuse(BY_NAME["Hello"], fields) == "malformed"
    renewing = Hello.decode(cbor.encode(HELLO_FIELDS | {6: "renew", 8: b"\x09" * 16}))
    assert (renewing.purpose, renewing.previous_lease_id) == ("renew", b"\x09" * 16)
    assert Hello.decode(cbor.encode(HELLO_FIELDS)).previous_lease_id is None


def test_an_absent_field_and_an_empty_one_are_not_the_same() -> None:
    fields = {0: bytes(16), 1: b"document", 2: b"key"}
    assert Evidence.decode(cbor.encode(fields)).certificate_request is None
    with pytest.raises(Malformed):
        Evidence.decode(cbor.encode(fields | {3: b""}))


def test_a_choice_outside_its_list_names_the_list_and_not_the_peers_bytes() -> None:
    assert one_of("live", ("live", "failed"), "confirm.1") == "live"
    with pytest.raises(Malformed) as refused:
        one_of("<script>", ("live", "failed"), "confirm.1")
    assert str(refused.value) == "confirm.1 must be one of live, failed [malformed]"
