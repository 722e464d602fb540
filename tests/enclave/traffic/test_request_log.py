"""The request log: every request has a number, lines travel together, and what is not kept is counted."""

import json

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.process.worker_policy import may_say
from runtime.enclave.traffic.request_log import GATHER_SECONDS, RequestLog, shared_members
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.framing import FrameDecoder
from runtime.protocol.worker_link import REQUESTS_MAX, WORKER_FRAME_MAX, Requests, decode_from_worker, encode


def read(sent: list[bytes]) -> list[dict[str, object]]:
    data = b"".join(sent)
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_a_line_has_what_is_known_of_a_request_and_its_number() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append)
    log.add({"method": "GET", "path": '/a"\\\u00e9', "status": 200, "seconds": 0.0015, "client": None})
    log.add({"status": 404})
    log.flush()
    log.flush()
    assert read(sent) == [
        {"request": 1, "method": "GET", "path": '/a"\\\u00e9', "status": 200, "seconds_us": 1500},
        {"request": 2, "status": 404},
    ]
    assert len(sent) == 1


def test_a_request_is_a_line_as_any_other() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append, now=lambda: 1.5)
    shared = shared_members(client=None, method="GET", path='/a"\\\u00e9\n')
    log.add_request(shared, request_id=b"0a", status=200, code="ok", request_bytes=7, answer_bytes=2, seconds=0.0015)
    log.add_request("", request_id=b"0b", status=None, code="client_gone", request_bytes=0, answer_bytes=0, seconds=0.0)
    log.flush()
    known = {"time_ms": 1500, "id": "0a", "method": "GET", "path": '/a"\\\u00e9\n'}
    measured = {"request_bytes": 7, "answer_bytes": 2, "seconds_us": 1500}
    assert read(sent) == [
        {"request": 1, **known, "status": 200, "code": "ok", **measured},
        {"request": 2, "time_ms": 1500, "id": "0b", "code": "client_gone", "request_bytes": 0, "answer_bytes": 0, "seconds_us": 0},
    ]


def test_a_line_end_in_a_field_makes_no_second_line() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append)
    log.add({"path": '/\n{"request":7}\r'})
    log.flush()
    assert [line["request"] for line in read(sent)] == [1]


def test_what_is_not_kept_is_counted_in_the_next_line() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append)
    log.add({"path": "x" * 5000})
    for _ in range(100):
        log.add({"path": "y" * 1000})
    log.flush()
    assert all(len(part) <= REQUESTS_MAX for part in sent)
    kept = len(read(sent))
    assert 50 < kept < 100
    log.add({"status": 200})
    log.flush()
    lines = read(sent)
    assert lines[0]["dropped"] == 1
    assert lines[-1] == {"request": 102, "dropped": 100 - kept, "status": 200}


def test_upstream_times_are_in_the_line_of_a_request_that_has_them() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append)
    add(log, first_byte=0.003, connect=0.002)
    log.flush()
    (line,) = read(sent)
    assert (line["first_byte_us"], line["connect_us"], line["seconds_us"]) == (3000, 2000, 4000)


def add(log: RequestLog, status: int | None = 200, code: str = "ok", **times: float) -> None:
    log.add_request("", request_id=b"1f", status=status, code=code, request_bytes=0, answer_bytes=0, seconds=0.004, **times)


def test_a_sample_keeps_the_numbers_of_all_requests() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append, sample=10)
    for _ in range(35):
        add(log)
    log.flush()
    assert [line["request"] for line in read(sent)] == [10, 20, 30]


def test_what_was_refused_or_went_wrong_is_in_every_sample() -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append, sample=1000)
    for status, code in ((200, "ok"), (404, "ok"), (503, "not_ready"), (200, "client_gone"), (None, "ok"), (302, "ok")):
        add(log, status, code)
    log.flush()
    assert [line["request"] for line in read(sent)] == [2, 3, 4, 5]


async def test_lines_wait_for_each_other_for_a_moment_and_then_go_together(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    sent: list[bytes] = []
    log = RequestLog(sent.append)
    nursery.start_soon(log.run)
    for _ in range(3):
        log.add({})
        await trio.sleep(GATHER_SECONDS / 4)
    await trio.sleep(GATHER_SECONDS)
    assert [len(read([part])) for part in sent] == [3]
    log.add({})
    await trio.sleep(2 * GATHER_SECONDS)
    assert [len(read([part])) for part in sent] == [3, 1]
    nursery.cancel_scope.cancel()


def carried(message: Requests) -> Value:
    frames = FrameDecoder(limit=WORKER_FRAME_MAX)
    frames.receive_data(encode(message))
    frame = frames.next_frame()
    assert frame is not None
    return frame[0]


def test_the_lines_cross_to_pid_1_as_they_are_and_only_from_an_ingress_worker() -> None:
    message = Requests(b'{"request":1}\n')
    assert decode_from_worker(carried(message)) == message
    assert may_say("ingress", message, is_draining=False)
    assert not may_say("api", message, is_draining=False)
    assert not may_say("provision", message, is_draining=False)
    with pytest.raises(Malformed):
        decode_from_worker(carried(Requests(bytes(REQUESTS_MAX + 1))))
