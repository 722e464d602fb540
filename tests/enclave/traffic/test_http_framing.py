"""Everything that could make two readers disagree about where a request ends: refused, or rebuilt so that none can."""

import time
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.enclave.traffic.http_headers import identified, shared_head
from runtime.enclave.traffic.http_heads import RequestHead, find_head, parse_request
from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.refusal import Refusal
from tests.enclave.traffic.framing_corpus import ACCEPTED, REFUSED, Accepted, Refused, unnamed
from tests.enclave.traffic.harness import App, ingress, parse_head

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"
ANY_HOST = HttpPolicy(checks_host=False)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_a_doubtful_request_is_refused_and_reaches_nobody(tmp_path: Path, case: Refused) -> None:
    app = App()
    async with ingress(tmp_path, app, policy=ANY_HOST) as gate:
        async with gate.client() as client:
            await client.send(case.raw + SMUGGLED)
            with trio.fail_after(60):
                answer = await client.to_end()
        await trio.testing.wait_all_tasks_blocked()
    status, fields = parse_head(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert status == case.status
    assert fields["connection"] == "close"
    assert fields["content-type"] == "application/problem+json"
    assert answer.count(b"HTTP/1.1 ") == 1
    assert app.requests == []
    assert not any(b"smuggled" in peer.seen for peer in gate.upstreams)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
async def test_a_request_reaches_the_application_as_it_was_understood_and_not_as_it_came(tmp_path: Path, case: Accepted) -> None:
    app = App()
    async with ingress(tmp_path, app, policy=ANY_HOST) as gate, gate.client() as client:
        await client.send(case.raw)
        with trio.fail_after(60):
            for _ in case.upstream:
                status, _ = parse_head(await client.until(b"\r\n\r\n"))
                assert status == 200
                if not case.raw.startswith(b"HEAD"):
                    assert await client.exactly(2) == b"ok"
        assert unnamed(b"".join(peer.seen for peer in gate.upstreams)) == b"".join(case.upstream)
    assert app.faults == []
    assert len(app.requests) == len(case.upstream)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
async def test_a_request_that_comes_byte_by_byte_is_the_same_request(tmp_path: Path, case: Accepted) -> None:
    app = App()
    async with ingress(tmp_path, app, policy=ANY_HOST) as gate, gate.client() as client:
        for byte in case.raw:
            await client.send(bytes((byte,)))
        with trio.fail_after(60):
            for _ in case.upstream:
                await client.until(b"\r\n\r\n")
    assert app.faults == []
    assert [target for target, _ in app.requests] == [message.partition(b" HTTP/1.1\r\n")[0] for message in case.upstream]
    assert b"".join(body for _, body in app.requests) == (b"hello" if b"hello" in b"".join(case.upstream) else b"")


def parse(raw: bytes) -> tuple[RequestHead, bytes] | None:
    """The head at the front of `raw` and what follows it, by the functions that the ingress uses; None when more is needed."""
    buffer = bytearray(raw)
    end = find_head(buffer, 0, line_max=8 * 1024, size_max=16 * 1024)
    if not end:
        return None
    return parse_request(bytes(buffer[:end]), fields_max=100), bytes(buffer[end:])


LINES = st.sampled_from(
    [b"GET / HTTP/1.1", b"POST /a HTTP/1.1", b"Host: a", b"Host: b",
     b"Content-Length: 5", b"Content-Length: 05", b"X: y", b" folded",
     b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"", b"Connection: close", b"Connection: x, host"]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\x00\r\n"])
HEADS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda lines: b"".join(a + b for a, b in lines) + b"\r\n") | st.binary(
    max_size=200
)


@settings(max_examples=1000, deadline=None)
@given(HEADS, st.integers(0, 400))
def test_any_bytes_are_a_head_or_not_yet_one_or_refused_and_a_head_is_rebuilt_into_itself(raw: bytes, cut: int) -> None:
    try:
        parsed = parse(raw)
    except Refusal:
        return
    if parsed is None:
        return
    head, _ = parsed
    assert parse(raw[:cut]) is None or cut >= raw.index(b"\r\n\r\n") + 4
    rebuilt = identified(shared_head(head, None), b"0" * 31 + b"1", b"0" * 31 + b"1")
    again = parse(rebuilt)
    assert again is not None
    assert (again[0].method, again[0].target, again[0].host) == (head.method, head.target, head.host)
    assert (again[0].length, again[0].chunked, again[1]) == (head.length, head.chunked, b"")


def test_a_head_of_any_shape_is_judged_in_time_that_grows_with_its_size_only() -> None:
    """White space and commas are where the time of a regular expression could go."""
    began = time.perf_counter()
    for filler in (b" ", b"\t ", b",", b";a=", b"a b", b":"):
        value = (filler * 16_000)[:15_900]
        for name in (b"X: ", b"Connection: ", b"X: a"):
            assert parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + name + value + b"x\r\n\r\n") is not None
    assert time.perf_counter() - began < 2
