"""The link between PID 1 and its workers: every message comes back as it was sent, and a worker can say nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol import cbor
from runtime.protocol.bundle import Lease, SecretValue
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.worker_link import (
    WORKER_FRAME_MAX,
    Answer,
    Ask,
    Configure,
    ConfirmNow,
    DrainNow,
    Event,
    Failed,
    Finished,
    FromFirst,
    FromWorker,
    Identities,
    Ping,
    Pong,
    Probed,
    Ready,
    Released,
    Started,
    Ticket,
    TicketWanted,
    Watch,
    WorkerIdentity,
    decode_from_first,
    decode_from_worker,
    encode,
)

LEASE = Lease(lease_id=bytes(16), key=SecretValue(b"k" * 32), bundle_version=7)
IDENTITY = WorkerIdentity(("a.example", "b.example"), (b"leaf", b"ca"), b"a private key")

FROM_WORKER: list[FromWorker] = [
    Started(),
    Pong(),
    Ask(3, b"\xa0"),
    TicketWanted(),
    Event("warning", "traffic.http_refused", {"status": 400, "code": "bad_head", "id": b"\x01"}),
    Released(b"a bundle", bytes(16), b"a tls key", 43_200),
    Released(b"a bundle", bytes(16), None, 0),
    Failed("tls_name", "somebody else"),
    Probed("app", True),
    Finished(),
]
FROM_FIRST: list[FromFirst] = [
    Configure("ingress", b"version = 1", bytes(16), "vsock:3:9002", (IDENTITY,), True, 2),
    Configure("api", b"", bytes(16), "unix:/x", (), False, 1),
    Configure("renew", b"", bytes(16), "unix:/x", (), False, 1, LEASE),
    Ping(),
    Identities((IDENTITY, IDENTITY)),
    Answer(3, b"\xa0"),
    Answer(4, 110),
    Ticket(bytes(32)),
    Ticket(None),
    Ready(False),
    ConfirmNow("live"),
    ConfirmNow("failed"),
    DrainNow(25_000),
    Watch("app", True),
]


def value_of(frame: bytes) -> Value:
    frames = FrameDecoder(limit=WORKER_FRAME_MAX)
    frames.receive_data(frame)
    received = frames.next_frame()
    assert received is not None
    assert frames.is_empty
    return received[0]


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda message: type(message).__name__)
def test_what_a_worker_says_comes_back_as_it_was(message: FromWorker) -> None:
    assert decode_from_worker(value_of(encode(message))) == message


@pytest.mark.parametrize("message", FROM_FIRST, ids=lambda message: type(message).__name__)
def test_what_pid_1_says_comes_back_as_it_was(message: FromFirst) -> None:
    assert decode_from_first(value_of(encode(message))) == message


@pytest.mark.parametrize("message", FROM_FIRST, ids=lambda message: type(message).__name__)
def test_a_worker_cannot_speak_as_pid_1(message: FromFirst) -> None:
    with pytest.raises(Malformed, match="not a worker's message"):
        decode_from_worker(value_of(encode(message)))


@pytest.mark.parametrize(
    "value",
    [
        "started",
        ["started", 1],
        ["ask", -1, b""],
        ["ask", True, b""],
        ["ask", 1, bytes(4097)],
        ["ask", 1, "text"],
        ["event", "loud", "a.b", {}],
        ["event", "info", "Not A Word", {}],
        ["event", "info", "a.b", {"Not A Word": 1}],
        ["event", "info", "a.b", {"text": "x" * 201}],
        ["event", "info", "a.b", {"bytes": bytes(65)}],
        ["event", "info", "a.b", {"nested": [1]}],
        ["event", "info", "a.b", {f"f{number}": 1 for number in range(33)}],
        ["released", b"", bytes(15), None, 0],
        ["released", b"", bytes(16), None],
        ["released", b"", bytes(16), None, -1],
        ["pong", 1],
        ["released", "text", bytes(16), None, 0],
        ["failed", "Free Text", "detail"],
        ["failed", "reason", "x" * 501],
        ["probed", "app", 1],
        ["probed", "x" * 65, True],
        [],
        None,
        {"started": 1},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_workers_message_out_of_its_bounds_is_refused(value: Value) -> None:
    with pytest.raises(Malformed):
        decode_from_worker(value)


def test_keys_and_secrets_are_not_shown_when_a_message_is() -> None:
    shown = repr([Released(b"a bundle", bytes(16), b"a tls key", 0), IDENTITY, Ticket(b"t" * 32), LEASE])
    assert "a bundle" not in shown
    assert "a tls key" not in shown
    assert "a private key" not in shown
    assert "tttt" not in shown
    assert "kkkk" not in shown


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for decode in (decode_from_worker, decode_from_first):
        try:
            message = decode(cbor.decode(data))
        except Malformed:
            continue
        assert decode(value_of(encode(message))) == message
