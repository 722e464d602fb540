"""The control link's messages and state machines, both ends driven together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.errors import LocalProtocolError, Malformed, ProtocolError, Refused
from runtime.protocol.framing import FRAME_MAX, encode_frame
from runtime.protocol.link import (
    Ack,
    Drain,
    Dropped,
    Exit,
    Hello,
    Journal,
    Log,
    Message,
    Metrics,
    MetricsWanted,
    Ping,
    Pong,
    Sealed,
    State,
    Ticket,
    TicketWanted,
    Welcome,
    decode_message,
    encode_message,
)
from runtime.protocol.link_state import LinkConnection, Phase, Role
from runtime.protocol.link_values import LINE_MAX, METRICS_MAX, STATES

BOOT_ID = bytes(range(16))
HELLO = Hello(boot_id=BOOT_ID)
WELCOME = Welcome(ticket=bytes(32), instance_id="i-0123456789abcdef0", host_parameters={"region": "eu-central-1"})
FROM_ENCLAVE: tuple[Message, ...] = (
    State(sequence=1, name="failed", reason="measurement_unknown", unix_ms=1_700_000_000_123),
    Journal(sequence=2, level="info", event="nsm.described", fields={"pcrs": 32, "module": "i-0-enc0", "digest": bytes(48)}),
    Log(sequence=3, process="app", stream="stderr", line=b"\x00\xff not text", dropped=7),
    Exit(sequence=4, process="app", code=3),
    Exit(sequence=5, process="app", signal=9),
    Dropped(total=12),
    Metrics(values={'requests_total{code="200"}': 5, "offset_ms": -3}),
    TicketWanted(),
    Pong(),
    Log(sequence=6, process="app", stream="stdout", line=b"the beginning of", is_partial=True),
    Sealed(sequence=7, sealed=b"\x01" * 100, lines=3),
)
FROM_PARENT: tuple[Message, ...] = (
    Ticket(ticket=bytes(32)),
    Ticket(ticket=None),
    Drain(deadline_ms=20_000),
    MetricsWanted(),
    Ack(sequence=2**64 - 1),
    Ping(),
)
ALL = (HELLO, WELCOME, *FROM_ENCLAVE, *FROM_PARENT)


def body_of(message: Message) -> bytes:
    return encode_message(message)[4:]


def open_pair() -> tuple[LinkConnection, LinkConnection]:
    enclave, parent = LinkConnection("enclave"), LinkConnection("parent")
    parent.receive_data(enclave.send(HELLO))
    assert parent.next_message() == HELLO
    enclave.receive_data(parent.send(WELCOME))
    assert enclave.next_message() == WELCOME
    return enclave, parent


@pytest.mark.parametrize("message", ALL, ids=repr)
def test_every_message_survives_the_wire(message: Message) -> None:
    assert decode_message(cbor.decode(body_of(message))) == message


def test_the_bytes_are_the_ones_that_the_specification_names() -> None:
    assert (
        encode_message(HELLO)
        == b"\x00\x00\x00\x1d" + bytes.fromhex("82 65") + b"hello" + bytes.fromhex("a2 00 81 01 01 50") + BOOT_ID
    )
    assert body_of(Drain(deadline_ms=500)) == bytes.fromhex("82 65") + b"drain" + bytes.fromhex("a1 00 19 01f4")
    assert cbor.decode(body_of(WELCOME)) == [
        "welcome",
        {0: 1, 1: bytes(32), 2: "i-0123456789abcdef0", 3: {"region": "eu-central-1"}},
    ]
    assert cbor.decode(body_of(FROM_ENCLAVE[0])) == ["state", {0: "failed", 1: "measurement_unknown", 2: 1_700_000_000_123, 3: 1}]
    assert cbor.decode(body_of(FROM_ENCLAVE[3])) == ["exit", {0: "app", 1: 3, 2: None, 3: 4}]


@pytest.mark.parametrize("message", ALL, ids=repr)
def test_a_message_cut_at_any_length_is_malformed(message: Message) -> None:
    body = body_of(message)
    for size in range(len(body)):
        with pytest.raises(Malformed):
            decode_message(cbor.decode(body[:size]))


@pytest.mark.parametrize("message", ALL, ids=repr)
def test_a_message_with_an_unknown_field_or_without_one_is_malformed(message: Message) -> None:
    kind, body = cbor.decode(body_of(message)), None
    assert isinstance(kind, list)
    kind, body = kind
    assert isinstance(body, dict)
    with pytest.raises(Malformed, match="unknown field"):
        decode_message([kind, body | {9: 0}])
    for key in body.keys() - ({5} if kind == "log" else set()):
        with pytest.raises(Malformed, match="lacks field"):
            decode_message([kind, {other: value for other, value in body.items() if other != key}])


def test_a_line_is_partial_or_does_not_speak_of_it() -> None:
    whole, partial = (Log(sequence=1, process="app", stream="stdout", line=b"x", is_partial=flag) for flag in (False, True))
    assert cbor.decode(body_of(whole)) == ["log", {0: 1, 1: "app", 2: "stdout", 3: b"x", 4: 0}]
    assert cbor.decode(body_of(partial)) == ["log", {0: 1, 1: "app", 2: "stdout", 3: b"x", 4: 0, 5: True}]
    for value in (False, 1, None):
        with pytest.raises(Malformed, match="true or absent"):
            decode_message(["log", {0: 1, 1: "app", 2: "stdout", 3: b"x", 4: 0, 5: value}])


@pytest.mark.parametrize(
    "value",
    [
        None,
        "hello",
        [],
        ["hello"],
        ["ping", {}, {}],
        [1, {}],
        ["ping", []],
        ["hello", {0: [], 1: BOOT_ID}],
        ["hello", {0: [1] * 17, 1: BOOT_ID}],
        ["hello", {0: [True], 1: BOOT_ID}],
        ["hello", {0: [1], 1: BOOT_ID[:15]}],
        ["hello", {0: [1], 1: "x" * 16}],
        ["state", {0: "asleep", 1: "", 2: 0, 3: 1}],
        ["state", {0: "ready", 1: "free text", 2: 0, 3: 1}],
        ["state", {0: "ready", 1: "", 2: -1, 3: 1}],
        ["state", {0: "ready", 1: "", 2: 0, 3: 0}],
        ["journal", {0: 1, 1: "fatal", 2: "x", 3: {}}],
        ["journal", {0: 1, 1: "info", 2: "Upper", 3: {}}],
        ["journal", {0: 1, 1: "info", 2: "x" * 65, 3: {}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {1: 1}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a b": 1}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a": True}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a": None}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a": [1]}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a": "x" * 201}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a": bytes(65)}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {"a": 2**63}}],
        ["journal", {0: 1, 1: "info", 2: "x", 3: {f"a{n}": 1 for n in range(33)}}],
        ["log", {0: 1, 1: "app", 2: "stdin", 3: b"", 4: 0}],
        ["log", {0: 1, 1: "", 2: "stdout", 3: b"", 4: 0}],
        ["log", {0: 1, 1: "app", 2: "stdout", 3: bytes(LINE_MAX + 1), 4: 0}],
        ["log", {0: 1, 1: "app", 2: "stdout", 3: "text", 4: 0}],
        ["exit", {0: "app", 1: None, 2: None, 3: 1}],
        ["exit", {0: "app", 1: 0, 2: 9, 3: 1}],
        ["exit", {0: "app", 1: 256, 2: None, 3: 1}],
        ["exit", {0: "app", 1: None, 2: 65, 3: 1}],
        ["metrics", {0: {"a b": 1}}],
        ["metrics", {0: {"": 1}}],
        ["metrics", {0: {f"m{n}": n for n in range(METRICS_MAX + 1)}}],
        ["welcome", {0: 1, 1: bytes(31), 2: "i-0", 3: {}}],
        ["welcome", {0: 1, 1: bytes(32), 2: "", 3: {}}],
        ["welcome", {0: 1, 1: bytes(32), 2: "i-0", 3: {"a": 1}}],
        ["welcome", {0: 1, 1: bytes(32), 2: "i-0", 3: {f"a{n}": "" for n in range(33)}}],
        ["ticket", {0: b""}],
        ["drain", {0: 24 * 3600 * 1000 + 1}],
        ["ack", {0: -1}],
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_the_specification_does_not_allow_is_malformed(value: cbor.Value) -> None:
    with pytest.raises(Malformed):
        decode_message(value)


def test_an_unknown_type_has_its_own_reason() -> None:
    with pytest.raises(Malformed) as caught:
        decode_message(["sudo", {}])
    assert caught.value.reason == "unknown_type"


def test_what_the_other_end_would_refuse_is_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        encode_message(Journal(sequence=1, level="info", event="not a word"))
    with pytest.raises(LocalProtocolError):
        encode_message(Exit(sequence=1, process="app"))


def test_the_largest_messages_fit_in_a_frame() -> None:
    metrics = Metrics(values={f"{n:0>110}": -(2**63) for n in range(METRICS_MAX)})
    welcome = Welcome(
        ticket=bytes(32), instance_id="i" * 64, host_parameters={f"{n:\U0001f600>200}": "\U0001f600" * 200 for n in range(32)}
    )
    journal = Journal(
        sequence=2**63,
        level="warning",
        event="e" * 64,
        fields={f"{n:a>64}".replace("0", "b"): "\U0001f600" * 200 for n in range(32)},
    )
    for message in (metrics, welcome, journal, Log(sequence=2**63, process="p" * 64, stream="stdout", line=bytes(LINE_MAX))):
        assert len(encode_message(message)) <= FRAME_MAX + 4


def test_every_state_of_the_vocabulary_is_spoken() -> None:
    for name in STATES:
        message = State(sequence=1, name=name, unix_ms=0)
        assert decode_message(cbor.decode(body_of(message))) == message


def test_a_secret_ticket_or_line_does_not_show_in_a_repr() -> None:
    shown = repr(
        (
            Welcome(ticket=b"T" * 32, instance_id="i"),
            Ticket(ticket=b"T" * 32),
            Log(sequence=1, process="a", stream="stdout", line=b"TTT"),
        )
    )
    assert "TTT" not in shown


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_both_ends_understand_each_other_in_pieces_of_any_size(step: int) -> None:
    enclave, parent = open_pair()
    for sender, receiver, messages in ((enclave, parent, FROM_ENCLAVE), (parent, enclave, FROM_PARENT)):
        data = b"".join(sender.send(message) for message in messages)
        received = []
        for start in range(0, len(data), step):
            receiver.receive_data(data[start : start + step])
            while (message := receiver.next_message()) is not None:
                received.append(message)
        assert tuple(received) == messages


def test_nothing_but_hello_may_come_first() -> None:
    for message in FROM_ENCLAVE:
        parent = LinkConnection("parent")
        parent.receive_data(encode_message(message))
        with pytest.raises(Malformed) as caught:
            parent.next_message()
        assert caught.value.reason == "out_of_order"


def test_nothing_but_welcome_may_answer_hello() -> None:
    for message in FROM_PARENT:
        enclave = LinkConnection("enclave")
        enclave.send(HELLO)
        enclave.receive_data(encode_message(message))
        with pytest.raises(Malformed) as caught:
            enclave.next_message()
        assert caught.value.reason == "out_of_order"


@pytest.mark.parametrize(("role", "message"), [("parent", HELLO), ("enclave", WELCOME)])
def test_a_second_greeting_is_malformed(role: Role, message: Message) -> None:
    connection = dict(zip(("enclave", "parent"), open_pair(), strict=True))[role]
    connection.receive_data(encode_message(message))
    with pytest.raises(Malformed) as caught:
        connection.next_message()
    assert caught.value.reason == "out_of_order"


def test_neither_end_may_speak_the_other_ends_messages() -> None:
    for message in FROM_PARENT:
        _, parent = open_pair()
        parent.receive_data(encode_message(message))
        with pytest.raises(Malformed):
            parent.next_message()
    for message in FROM_ENCLAVE:
        enclave, _ = open_pair()
        enclave.receive_data(encode_message(message))
        with pytest.raises(Malformed):
            enclave.next_message()


def test_our_own_code_cannot_break_the_order_either() -> None:
    enclave = LinkConnection("enclave")
    with pytest.raises(LocalProtocolError):
        enclave.send(Pong())
    with pytest.raises(LocalProtocolError):
        LinkConnection("parent").send(WELCOME)
    enclave.send(HELLO)
    with pytest.raises(LocalProtocolError):
        enclave.send(HELLO)


def test_an_unknown_version_is_refused_on_both_sides() -> None:
    parent = LinkConnection("parent")
    parent.receive_data(encode_message(Hello(versions=(2, 3), boot_id=BOOT_ID)))
    with pytest.raises(Refused) as caught:
        parent.next_message()
    assert caught.value.reason == "unsupported_version"
    assert parent.phase is Phase.CONNECTED
    enclave = LinkConnection("enclave")
    enclave.send(HELLO)
    enclave.receive_data(encode_message(Welcome(version=2, ticket=None, instance_id="i-0")))
    with pytest.raises(Refused):
        enclave.next_message()


def test_a_later_version_beside_ours_is_fine() -> None:
    parent = LinkConnection("parent")
    parent.receive_data(encode_message(Hello(versions=(2, 1), boot_id=BOOT_ID)))
    assert isinstance(parent.next_message(), Hello)


def test_a_huge_frame_is_refused_by_its_length_alone() -> None:
    parent = LinkConnection("parent")
    parent.receive_data((FRAME_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(Malformed) as caught:
        parent.next_message()
    assert caught.value.reason == "too_large"


@given(st.binary(max_size=300))
def test_any_bytes_give_a_message_or_the_one_error(data: bytes) -> None:
    _, parent = open_pair()
    parent.receive_data(data)
    try:
        while parent.next_message() is not None:
            pass
    except ProtocolError:
        pass


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 5) | st.text(max_size=4), inner, max_size=5),
    max_leaves=8,
)


@given(st.sampled_from([message.KIND for message in ALL]), st.dictionaries(st.integers(0, 4), _VALUES, max_size=5))
def test_any_values_in_a_known_type_give_a_message_or_the_one_error(kind: str, body: dict[int, object]) -> None:
    try:
        frame = encode_frame([kind, body])
    except LocalProtocolError:
        return
    try:
        message = decode_message(cbor.decode(frame[4:], max_size=FRAME_MAX))
    except Malformed:
        return
    assert encode_message(message) == frame
