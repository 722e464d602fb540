"""The messages of /dev/nsm against the bytes of AWS's own client, and against bytes that nobody should send."""

import tomllib
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.nsm import (
    NONCE_MAX,
    PUBLIC_KEY_MAX,
    REQUEST_MAX,
    RESPONSE_MAX,
    USER_DATA_MAX,
    Attest,
    Attested,
    DescribeNsm,
    DescribePcr,
    ExtendPcr,
    Failure,
    GetRandom,
    LockPcr,
    LockPcrs,
    NsmDescription,
    NsmErrorCode,
    PcrDescription,
    PcrExtended,
    PcrLocked,
    PcrsLocked,
    Random,
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

ENCODINGS = tomllib.loads((Path(__file__).parents[1] / "vectors/nsm/encodings.toml").read_text())

REQUESTS: dict[str, Request] = {
    "GetRandom": GetRandom(),
    "DescribeNSM": DescribeNsm(),
    "DescribePCR 0": DescribePcr(index=0),
    "DescribePCR 31": DescribePcr(index=31),
    "ExtendPCR 16 with 010203": ExtendPcr(index=16, data=b"\x01\x02\x03"),
    "LockPCR 16": LockPcr(index=16),
    "LockPCRs 0..16 (range 17)": LockPcrs(count=17),
    "Attestation, nothing": Attest(),
    "Attestation, all three": Attest(user_data=b"ud", nonce=bytes(16), public_key=b"pk"),
    "Attestation, empty user_data": Attest(user_data=b""),
}
RESPONSES: dict[str, Response] = {
    "GetRandom": Random(random=bytes(range(256))),
    "DescribeNSM": NsmDescription(
        version=(1, 0, 0),
        module_id="i-0123456789abcdef0-enc0123456789abcdef",
        max_pcrs=32,
        locked_pcrs=frozenset(range(16)),
        digest="SHA384",
    ),
    "DescribePCR": PcrDescription(locked=True, value=bytes(48)),
    "ExtendPCR": PcrExtended(value=b"\x11" * 48),
    "LockPCR": PcrLocked(),
    "LockPCRs": PcrsLocked(),
    "Attestation": Attested(document=b"\x84..."),
}


def vectors(kind: str) -> dict[str, bytes]:
    return {vector["name"]: bytes.fromhex(vector["cbor"]) for vector in ENCODINGS[kind]}


def test_every_vector_has_its_value_here() -> None:
    assert vectors("request").keys() == REQUESTS.keys()
    assert vectors("response").keys() == RESPONSES.keys()
    assert vectors("error").keys() == {code.value for code in NsmErrorCode}


@pytest.mark.parametrize("name", vectors("request"))
def test_a_request_has_the_bytes_of_awss_client(name: str) -> None:
    assert encode_request(REQUESTS[name]) == vectors("request")[name]
    assert decode_request(vectors("request")[name]) == REQUESTS[name]


@pytest.mark.parametrize("name", vectors("response"))
def test_a_response_has_the_bytes_that_awss_client_expects(name: str) -> None:
    assert decode_response(vectors("response")[name]) == RESPONSES[name]
    assert encode_response(RESPONSES[name]) == vectors("response")[name]


@pytest.mark.parametrize("name", vectors("error"))
def test_each_error_of_the_device_has_its_name(name: str) -> None:
    assert decode_response(vectors("error")[name]) == Failure(code=NsmErrorCode(name))
    assert encode_response(Failure(code=NsmErrorCode(name))) == vectors("error")[name]


def test_the_reason_codes_are_stable() -> None:
    assert [code.reason for code in NsmErrorCode] == [
        "nsm_invalid_argument",
        "nsm_invalid_index",
        "nsm_invalid_response",
        "nsm_read_only_index",
        "nsm_invalid_operation",
        "nsm_buffer_too_small",
        "nsm_input_too_large",
        "nsm_internal_error",
    ]


@pytest.mark.parametrize(
    "name", [name for name, response in RESPONSES.items() if isinstance(cbor2.loads(encode_response(response)), dict)]
)
def test_a_response_may_have_indefinite_lengths_and_any_key_order(name: str) -> None:
    [(tag, fields)] = cbor2.loads(encode_response(RESPONSES[name])).items()
    body = b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in reversed(fields.items()))
    assert decode_response(b"\xbf" + cbor2.dumps(tag) + b"\xbf" + body + b"\xff\xff") == RESPONSES[name]


def test_a_field_that_a_newer_module_adds_is_passed_over() -> None:
    assert decode_response(cbor2.dumps({"ExtendPCR": {"data": bytes(48), "epoch": 3}})) == PcrExtended(value=bytes(48))


def test_the_order_of_locked_pcrs_means_nothing() -> None:
    fields = cbor2.loads(vectors("response")["DescribeNSM"])
    fields["DescribeNSM"]["locked_pcrs"] = [17, 3, 0]
    described = decode_response(cbor2.dumps(fields))
    assert isinstance(described, NsmDescription)
    assert described.locked_pcrs == {0, 3, 17}


@pytest.mark.parametrize(
    "item",
    [
        "Unknown",
        "DescribePCR",
        {},
        {"LockPCR": {}, "LockPCRs": {}},
        {1: "LockPCR"},
        {"LockPCR": {"index": 1}},
        {"GetRandom": {"random": b""}},
        {"GetRandom": {"random": "text"}},
        {"GetRandom": {}},
        {"GetRandom": b"\x01"},
        {"DescribePCR": {"lock": 1, "data": bytes(48)}},
        {"DescribePCR": {"lock": True}},
        {"DescribePCR": {"lock": True, "data": bytes(47)}},
        {"ExtendPCR": {"data": b""}},
        {"Attestation": {"document": b""}},
        {"Attestation": {"document": None}},
        {"Error": "OutOfCheese"},
        {"Error": 2},
        {"DescribeNSM": {"digest": "SHA384"}},
        ["LockPCR"],
        None,
        7,
    ],
)
def test_a_response_of_any_other_shape_is_malformed(item: object) -> None:
    with pytest.raises(Malformed):
        decode_response(cbor2.dumps(item))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version_major", 65536),
        ("version_minor", -1),
        ("version_patch", True),
        ("module_id", ""),
        ("module_id", b"i-0"),
        ("max_pcrs", None),
        ("locked_pcrs", {"0": 0}),
        ("locked_pcrs", [65536]),
        ("locked_pcrs", [False]),
        ("digest", "MD5"),
    ],
)
def test_a_description_with_a_wrong_field_is_malformed(field: str, value: object) -> None:
    fields = cbor2.loads(vectors("response")["DescribeNSM"])
    fields["DescribeNSM"][field] = value
    with pytest.raises(Malformed):
        decode_response(cbor2.dumps(fields))


@pytest.mark.parametrize("data", [*vectors("request").values(), *vectors("response").values()])
def test_what_is_cut_or_followed_by_something_is_malformed(data: bytes) -> None:
    for decode in (decode_request, decode_response):
        for end in range(len(data)):
            with pytest.raises(Malformed):
                decode(data[:end])
        with pytest.raises(Malformed):
            decode(data + b"\x00")


@pytest.mark.parametrize(
    "item",
    [
        "LockPCR",
        {"DescribePCR": {}},
        {"DescribePCR": {"index": -1}},
        {"DescribePCR": {"index": 65536}},
        {"DescribePCR": {"index": True}},
        {"ExtendPCR": {"index": 16}},
        {"ExtendPCR": {"index": 16, "data": "text"}},
        {"LockPCRs": {"index": 1}},
        {"Attestation": {"nonce": "text"}},
        {"Attestation": None},
        {"GetRandom": {"size": 1}},
    ],
)
def test_a_request_of_any_other_shape_is_malformed(item: object) -> None:
    with pytest.raises(Malformed):
        decode_request(cbor2.dumps(item))


def test_absent_optional_fields_of_a_request_are_none() -> None:
    assert decode_request(cbor2.dumps({"Attestation": {"nonce": b"n"}})) == Attest(nonce=b"n")


def test_a_field_over_its_limit_is_refused_before_it_is_sent() -> None:
    over: list[Request] = [
        Attest(user_data=bytes(USER_DATA_MAX + 1)),
        Attest(nonce=bytes(NONCE_MAX + 1)),
        Attest(public_key=bytes(PUBLIC_KEY_MAX + 1)),
        ExtendPcr(index=16, data=bytes(REQUEST_MAX)),
    ]
    for request in over:
        with pytest.raises(Refused) as refused:
            encode_request(request)
        assert refused.value.reason == "nsm_input_too_large"


def test_all_fields_at_their_limits_fit_in_a_request() -> None:
    request = Attest(user_data=bytes(USER_DATA_MAX), nonce=bytes(NONCE_MAX), public_key=bytes(PUBLIC_KEY_MAX))
    encoded = encode_request(request)
    assert len(encoded) <= REQUEST_MAX
    assert decode_request(encoded) == request


def test_a_response_over_the_devices_buffer_is_malformed() -> None:
    response = encode_response(Attested(document=bytes(RESPONSE_MAX)))
    with pytest.raises(Malformed) as malformed:
        decode_response(response)
    assert malformed.value.reason == "too_large"


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text(max_size=12) | st.binary(max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12) | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["GetRandom", "DescribeNSM", "DescribePCR", "ExtendPCR", "LockPCR", "LockPCRs", "Attestation", "Error"])
near_messages = st.builds(lambda name, body: cbor2.dumps({name: body}), names, json_like) | json_like.map(cbor2.dumps)


@given(st.binary(max_size=200) | near_messages)
def test_any_bytes_give_a_value_or_malformed(data: bytes) -> None:
    try:
        response = decode_response(data)
    except Malformed:
        pass
    else:
        assert decode_response(encode_response(response)) == response
    try:
        request = decode_request(data)
    except Malformed:
        return
    assert decode_request(encode_request(request)) == request
