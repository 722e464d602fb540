"""Every request of the corpora: what reaches the customer process is exactly what was decided, or the client got an error."""

from pathlib import Path
from random import Random, getrandbits

import pytest

from runtime.enclave.traffic.public_evidence import DEFAULT_PATH
from tests.desync.cases import CHUNKED, HELLO_CHUNKS, Case, post, request
from tests.desync.corpus import GROUPS
from tests.desync.delivery import DELIVERIES, in_pieces, report, whole
from tests.desync.judge import FOLLOWING
from tests.desync.public import guardian
from tests.desync.reading import read_answer
from tests.desync.rig import running

CORPORA = GROUPS | {"http-desync-guardian": guardian()}


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("corpus", CORPORA)
async def test_what_reaches_the_customer_is_what_was_decided_or_the_client_got_an_error(
    tmp_path: Path, corpus: str, delivery: str
) -> None:
    seed = getrandbits(32)
    async with running(tmp_path) as rig:
        wrong = await report(rig, CORPORA[corpus], DELIVERIES[delivery], Random(seed))
    assert not wrong, f"seed {seed}\n{wrong}"


@pytest.mark.parametrize(
    "raw",
    [
        request(b"Cookie: a=b\r\n", line=b"GET /a?b=c HTTP/1.1"),
        post(b"Content-Length: 5\r\n", b"hello"),
        post(b"Expect: 100-continue\r\n" + CHUNKED, b'2;a="b"\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n'),
    ],
    ids=["GET", "length", "chunks"],
)
async def test_a_request_cut_at_any_length_is_none(tmp_path: Path, raw: bytes) -> None:
    cases = [Case(name=f"{size} octets", raw=raw[:size], ends=True) for size in range(len(raw))]
    async with running(tmp_path) as rig:
        wrong = await report(rig, cases, whole, Random(0))
    assert not wrong, wrong


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: %d\r\n\r\n" % len(FOLLOWING),
        CHUNKED + b"\r\n" + HELLO_CHUNKS,
        CHUNKED + b"\r\n" + b"x\r\n",
        CHUNKED + b"\r\n",
    ],
)
async def test_a_body_that_is_sent_to_the_evidence_is_never_the_next_request(tmp_path: Path, rest: bytes) -> None:
    """Who answers here must know as well where a request ends. What follows may be lost; it must not be what it was not."""
    raw = b"POST " + DEFAULT_PATH.encode() + b" HTTP/1.1\r\nHost: a.example\r\n" + rest
    async with running(tmp_path) as rig:
        seen = await rig.run([raw + FOLLOWING])
    assert seen.crash is None
    targets = [message.start[1] for _, message in seen.arrived]
    assert targets in ([], [b"/behind"])
    assert not targets or rest.endswith((b"hello", HELLO_CHUNKS))
    assert seen.received.startswith(b"HTTP/1.1 4")
    assert targets or seen.ending == "closed" or not rest.endswith((b"hello", HELLO_CHUNKS))


async def test_clients_that_speak_at_the_same_time_get_their_own_answers(tmp_path: Path) -> None:
    seed = getrandbits(32)
    random = Random(seed)
    sent = [[request(line=b"GET /%d/%d HTTP/1.1" % (client, number)) for number in range(20)] for client in range(8)]
    async with running(tmp_path) as rig:
        received, arrived = await rig.together([in_pieces(b"".join(requests), random) for requests in sent], random)
    targets = {b"%d" % serial: message.start[1] for serial, message in arrived}
    assert len(targets) == len(arrived) == 160
    for client, data in enumerate(received):
        at, got = 0, []
        while at < len(data):
            answer, at = read_answer(data, at, method=b"GET", ended=False)
            got.append(targets[answer.body])
        assert got == [b"/%d/%d" % (client, number) for number in range(20)], f"seed {seed}"
