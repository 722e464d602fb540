"""The bytes of attestation documents: what is read, what is refused, what is written."""

from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.protocol import document as subject
from runtime.protocol.document import encode_document, encode_payload, parse_document
from runtime.protocol.errors import Malformed
from runtime.verifier.reasons import Reason
from tests.support import documents
from tests.support.documents import ABSENT, Raw
from tests.support.mutations_bytes import envelope_mutations, payload_mutations
from tests.support.vectors import Vector, vectors

ACCEPTED = [vector for vector in vectors() if vector.accepted]


REASONS = {code.value for code in Reason}


def outcome(data: bytes) -> str:
    """ "read", or the reason of the one error there may be."""
    try:
        parse_document(data)
    except Malformed as error:
        return error.reason
    return "read"


def refusal(data: bytes) -> str:
    with pytest.raises(Malformed) as refused:
        parse_document(data)
    return refused.value.reason


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector.file)
def test_a_genuine_document_has_the_fields_that_the_manifest_names(vector: Vector) -> None:
    parsed, entry = parse_document(vector.data), vector.entry
    assert parsed.module_id == entry["module_id"]
    assert parsed.timestamp_ms == entry["timestamp_ms"]
    assert parsed.timestamp == entry["timestamp"]
    assert parsed.is_debug == entry["debug"]
    assert len(parsed.pcrs) == entry["pcr_count"]
    assert len(parsed.cabundle) == entry["cabundle_count"]
    zero = {index: bytes(48).hex() for index in entry["pcrs"]["zero"]}
    named = {int(index): value for index, value in entry["pcrs"].items() if index != "zero"}
    assert {index: value.hex() for index, value in parsed.pcrs.items()} == zero | named
    for name in ("public_key", "user_data", "nonce"):
        field = getattr(parsed, name)
        assert entry[f"{name}_size"] == (-1 if field is None else len(field))


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector.file)
def test_a_genuine_document_is_read_as_an_independent_decoder_reads_it(vector: Vector) -> None:
    parsed = parse_document(vector.data)
    protected, _, payload, signature = cbor2.loads(vector.data.removeprefix(b"\xd2"))
    fields = cbor2.loads(payload)
    assert (parsed.protected, parsed.payload, parsed.signature) == (protected, payload, signature)
    assert parsed.pcrs == fields["pcrs"]
    assert parsed.certificate == fields["certificate"]
    assert parsed.cabundle == tuple(fields["cabundle"])
    assert (parsed.public_key, parsed.user_data, parsed.nonce) == (fields["public_key"], fields["user_data"], fields["nonce"])
    assert parsed.signed_bytes == cbor2.dumps(["Signature1", protected, b"", payload])


def test_a_genuine_document_of_today_is_written_again_byte_for_byte() -> None:
    today = [vector for vector in ACCEPTED if vector.entry["payload_map"] == "indefinite" and not vector.entry["tagged"]]
    assert len(today) >= 8
    for vector in today:
        parsed = parse_document(vector.data)
        payload = encode_payload(
            module_id=parsed.module_id,
            timestamp_ms=parsed.timestamp_ms,
            pcrs=parsed.pcrs,
            certificate=parsed.certificate,
            cabundle=parsed.cabundle,
            public_key=parsed.public_key,
            user_data=parsed.user_data,
            nonce=parsed.nonce,
        )
        assert payload == parsed.payload
        assert encode_document(payload, parsed.signature) == vector.data


def test_a_nitrotpm_document_is_refused_by_its_own_name() -> None:
    foreign = [vector for vector in vectors() if vector.entry["kind"] == "nitrotpm"]
    assert foreign
    assert {refusal(vector.data) for vector in foreign} == {"nitrotpm_document"}


def test_one_tag_18_is_taken_and_changes_nothing() -> None:
    plain = documents.document()
    assert parse_document(b"\xd2" + plain) == parse_document(plain)


ALLOWED: dict[str, dict[str, Any]] = {
    "optional fields absent": dict.fromkeys(("public_key", "user_data", "nonce"), ABSENT),
    "optional fields empty": dict.fromkeys(("public_key", "user_data", "nonce"), b""),
    "optional fields of 1024 bytes": dict.fromkeys(("public_key", "user_data", "nonce"), bytes(1024)),
    "one register": {"pcrs": {31: bytes(48)}},
    "32 registers": {"pcrs": {index: bytes(48) for index in range(32)}},
    "registers of 32 and 64 bytes": {"pcrs": {0: bytes(32), 1: bytes(64)}},
    "registers in any order": {"pcrs": Raw(b"\xa2\x05\x58\x30" + bytes(48) + b"\x00\x58\x30" + bytes(48))},
    "registers of indefinite length": {"pcrs": Raw(b"\xbf\x00\x58\x30" + bytes(48) + b"\xff")},
    "a timestamp of one millisecond": {"timestamp": 1},
    "a timestamp at the end of 9999": {"timestamp": 253402300799999},
    "eight certificates of 1024 bytes": {"cabundle": [bytes(1024)] * 8, "certificate": bytes(1024)},
    "a certificate of one byte": {"certificate": b"x"},
    "a module_id of one letter": {"module_id": "é"},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_rules_allow_is_read(name: str) -> None:
    parsed = parse_document(documents.document(**ALLOWED[name]))
    for field, value in ALLOWED[name].items():
        if not isinstance(value, Raw) and field != "timestamp":
            read = getattr(parsed, field)
            assert (list(read) if field == "cabundle" else read) == (None if value is ABSENT else value)


def test_a_payload_of_definite_length_and_of_another_order_is_read() -> None:
    fields = dict(reversed(documents.fields().items()))
    parsed = parse_document(documents.envelope(documents.payload(fields, head=b"\xa9", tail=b"")))
    assert parsed.module_id == documents.MODULE_ID


def test_absent_is_none_and_empty_is_not() -> None:
    assert parse_document(documents.document(nonce=ABSENT)).nonce is None
    assert parse_document(documents.document(nonce=None)).nonce is None
    assert parse_document(documents.document(nonce=b"")).nonce == b""


def test_debug_means_pcr_0_1_and_2_are_zero_whatever_the_others_are() -> None:
    registers = documents.pcrs()
    assert not parse_document(documents.document()).is_debug
    assert parse_document(documents.document(pcrs=registers | dict.fromkeys((0, 1, 2), bytes(48)))).is_debug
    for index in (0, 1, 2):
        zero = dict.fromkeys({0, 1, 2} - {index}, bytes(48))
        assert not parse_document(documents.document(pcrs=registers | zero)).is_debug
    assert parse_document(documents.document(pcrs={4: registers[4]})).is_debug


def test_every_prefix_of_a_document_is_refused_as_truncated() -> None:
    for data in (documents.document(), b"\xd2" + documents.document(), ACCEPTED[0].data):
        assert {refusal(data[:size]) for size in range(len(data))} == {"truncated"}


def test_every_prefix_of_a_payload_is_refused() -> None:
    payload = documents.payload(documents.fields())
    for size in range(1, len(payload)):
        assert refusal(documents.envelope(payload[:size], signature=bytes(96))) == "truncated"


MALFORMED = [
    (name, data, codes)
    for name, data, codes in (*envelope_mutations(documents.document()), *payload_mutations())
    if not codes & {"signature_range", "signature_invalid"}
]


@pytest.mark.parametrize(("data", "codes"), [pytest.param(data, codes, id=name) for name, data, codes in MALFORMED])
def test_a_malformed_document_is_refused_for_its_fault_before_anything_is_verified(data: bytes, codes: set[str]) -> None:
    assert {refusal(data)} == codes


@given(st.binary(max_size=600))
@example(b"")
@example(b"\xd2")
@example(b"\x84\x40\xa0\x40\x40")
def test_any_bytes_give_a_document_or_malformed(data: bytes) -> None:
    assert outcome(data) in REASONS | {"read"}


@given(st.data())
def test_a_document_with_any_bytes_replaced_gives_a_document_or_malformed(data: st.DataObject) -> None:
    base = documents.document()
    start = data.draw(st.integers(0, len(base)))
    cut = data.draw(st.integers(0, 40))
    altered = base[:start] + data.draw(st.binary(max_size=40)) + base[start + cut :]
    assert outcome(altered) in REASONS | {"read"}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.binary(max_size=60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers() | st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*documents.fields(), "other"]), _VALUES, max_size=5))
def test_a_payload_of_any_values_gives_a_document_or_malformed(changes: dict[str, object]) -> None:
    content = documents.payload(documents.fields() | changes)
    assert outcome(documents.envelope(content, signature=bytes(96))) in REASONS | {"read"}


def test_the_protected_header_is_that_of_every_genuine_document() -> None:
    assert {parse_document(vector.data).protected for vector in ACCEPTED} == {subject.PROTECTED}
