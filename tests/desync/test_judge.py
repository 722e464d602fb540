"""The judge itself: what it must find, and that the corpora say of every request what an independent reading says."""

import pytest

from tests.desync.answer_judge import judge_answer
from tests.desync.answers import ANSWERS
from tests.desync.answers.cases import AnswerCase
from tests.desync.cases import GET_ROOT, POST_HELLO, Arrival, Case, accept, cut, either, post, refuse, request
from tests.desync.corpus import GROUPS
from tests.desync.judge import BEHIND, FOLLOWING, judge, lawful
from tests.desync.public import guardian
from tests.desync.reading import Doubt, Incomplete, origin_form, read_answer, read_requests
from tests.desync.rig import Link, Seen, ok

CLIENT = "100.64.0.1"
WRITTEN = (
    b"X-Forwarded-For: 100.64.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n"
    b'Forwarded: for="100.64.0.1";proto=https\r\n'
)
PROBLEM = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: 15\r\n\r\n"
    b'{"status": 400}'
)
CASES = [case for cases in [*GROUPS.values(), guardian()] for case in cases]


def handed(fields: bytes = b"", body: bytes = b"", *, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return request(WRITTEN + fields, body, line=line)


BEHIND_BYTES = handed(line=b"GET /behind HTTP/1.1")


def seen(upstream: bytes, received: bytes | None = None, *, ending: str = "open", ended: bool = False) -> Seen:
    """What would be seen if these bytes had reached the customer process; every request of them is answered unless it is said."""
    arrived = tuple(enumerate(read_requests(upstream)[0], 1))
    answers = b"".join(ok(message.start[0], serial) for serial, message in arrived)
    return Seen(
        client=CLIENT,
        received=answers if received is None else answers + received,
        ending=ending,
        links=(Link(bytearray(upstream), ended),) if upstream else (),
        arrived=arrived,
        crash=None,
    )


def verdict(case: Case, found: Seen) -> str:
    """The first fault and whether any is critical."""
    faults = judge(case, found)
    return "right" if not faults else "critical" if any(fault.critical for fault in faults) else "wrong"


PLAIN = accept("plain", request())
BAD = refuse("bad", request(b"A: \x00\r\n"))


def test_what_is_right_is_right() -> None:
    assert verdict(PLAIN, seen(handed() + BEHIND_BYTES)) == "right"
    assert verdict(BAD, seen(b"", PROBLEM, ending="closed")) == "right"
    posted = accept("posted", post(b"Content-Length: 5\r\n", b"hello"), POST_HELLO)
    sent = handed(b"Content-Length: 5\r\n", b"hello", line=b"POST / HTTP/1.1")
    assert verdict(posted, seen(sent + BEHIND_BYTES)) == "right"
    assert verdict(accept("last", request(b"Connection: close\r\n"), closes=True), seen(handed(), ending="closed")) == "right"
    assert verdict(refuse("second", request() * 2, after=(GET_ROOT,)), seen(handed(), PROBLEM, ending="closed")) == "right"
    half = handed(b"Content-Length: 5\r\n", b"he", line=b"POST / HTTP/1.1")
    assert verdict(cut("half", post(b"Content-Length: 5\r\n", b"he")), seen(half, ended=True, ending="closed")) == "right"
    choice = either("choice", request(), why="a test")
    assert verdict(choice, seen(handed() + BEHIND_BYTES)) == verdict(choice, seen(b"", PROBLEM, ending="closed")) == "right"


@pytest.mark.parametrize(
    "upstream",
    [
        handed(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        handed(b"Host: b.example\r\n"),
        handed(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
        handed(b"Content-Length: 0\r\nContent-Length: 0\r\n"),
        handed(b"A: b\r\n c\r\n"),
        handed(b"A: b\nC: d\r\n"),
        handed(b"A: \x00\r\n"),
        handed(b"A : b\r\n"),
        handed(b"TE: trailers\r\n"),
        handed(b"X_Forwarded_For: 127.0.0.1\r\n"),
        handed(b"X-Forwarded-For: 127.0.0.1\r\n"),
        handed(b"X-Forwarded-Prefix: /\r\n"),
        handed(b"Upgrade: websocket\r\n"),
        handed(b"A-Field-From-Nowhere: b\r\n"),
        handed(line=b"GET / HTTP/1.0"),
        handed(line=b"GET https://a.example/ HTTP/1.1"),
        handed(line=b"GET /other HTTP/1.1"),
        handed(line=b"HEAD / HTTP/1.1"),
        handed(b"Content-Length: 5\r\n", b"hello"),
        request(),
        request(WRITTEN.replace(b"100.64.0.1", b"127.0.0.1")),
        handed() + b"x",
        handed() + handed(),
        handed()[:-1],
    ],
)
def test_bytes_of_doubt_at_the_customer_process_are_critical(upstream: bytes) -> None:
    assert verdict(PLAIN, seen(upstream + BEHIND_BYTES)) == "critical"


def test_a_part_of_a_request_is_critical_unless_its_connection_ends() -> None:
    half = handed(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", line=b"POST / HTTP/1.1")
    bad = refuse("bad chunk", post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\nx\r\n"))
    assert verdict(bad, seen(half, PROBLEM, ending="closed", ended=True)) == "right"
    assert verdict(bad, seen(half, PROBLEM, ending="closed", ended=False)) == "critical"
    assert verdict(bad, seen(half + b"0\r\n\r\n", PROBLEM, ending="closed", ended=True)) == "critical"


@pytest.mark.parametrize(
    "received",
    [
        ok(b"GET", 2) + ok(b"GET", 1),
        ok(b"GET", 1) + ok(b"GET", 1),
        ok(b"GET", 1) + ok(b"GET", 2) + b"x",
        ok(b"GET", 1) + ok(b"GET", 2).replace(b"\r\n", b"\n"),
        ok(b"GET", 1).replace(b"200", b"404") + ok(b"GET", 2),
    ],
)
def test_an_answer_that_is_another_ones_or_none_is_critical(received: bytes) -> None:
    both = seen(handed() + BEHIND_BYTES)
    found = Seen(client=CLIENT, received=received, ending="open", links=both.links, arrived=both.arrived, crash=None)
    assert verdict(PLAIN, found) == "critical"


@pytest.mark.parametrize(
    "received",
    [
        b"",
        PROBLEM.replace(b"400", b"404"),
        PROBLEM.replace(b"problem+", b""),
        PROBLEM.replace(b"Connection: close\r\n", b""),
        PROBLEM.replace(b'"status": 400', b'"status": 500'),
        PROBLEM + PROBLEM,
    ],
)
def test_a_refusal_must_be_the_one_that_is_said(received: bytes) -> None:
    assert verdict(BAD, seen(b"", received, ending="closed")) != "right"


def test_a_connection_that_stays_open_behind_a_refusal_is_wrong() -> None:
    assert verdict(BAD, seen(b"", PROBLEM, ending="open")) == "wrong"
    assert verdict(BAD, seen(b"", PROBLEM + ok(b"GET", 1), ending="closed")) == "critical"


def test_what_is_to_be_refused_and_is_carried_out_is_found() -> None:
    lax = refuse("lax", request(line=b"TRACE / HTTP/1.1"))
    assert verdict(lax, seen(handed(line=b"TRACE / HTTP/1.1") + BEHIND_BYTES)) == "wrong"
    assert verdict(BAD, seen(handed(b"A: \x01\r\n") + BEHIND_BYTES)) == "critical"


def test_an_ingress_that_dies_is_critical() -> None:
    died = Seen(client=CLIENT, received=b"", ending="broken", links=(), arrived=(), crash="a traceback")
    assert verdict(BAD, died) == "critical"
    assert any(fault.critical for fault in lawful(BAD.raw, died))


def test_any_bytes_must_arrive_as_another_reads_them() -> None:
    assert not lawful(request(), seen(handed(), ending="closed"))
    assert not lawful(BAD.raw, seen(b"", PROBLEM, ending="closed"))
    assert not lawful(request(), seen(b"", PROBLEM, ending="closed")), "stricter than needed is no fault of safety"
    assert lawful(request(), seen(b"", ending="closed")), "neither answered nor refused"
    assert lawful(request(), seen(handed() + BEHIND_BYTES, ending="closed")), "a request that nobody made"
    assert lawful(BAD.raw, seen(handed(), ending="closed")), "a request where there is none"


@pytest.mark.parametrize(
    ("received", "ending"),
    [
        (ok(b"GET", 1) + ok(b"GET", 9), "open"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison" + ok(b"GET", 2), "open"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok" + ok(b"GET", 2), "open"),
        (b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 2\r\n\r\nok" + ok(b"GET", 2), "open"),
        (b"HTTP/1.1 200 OK\r\nKeep-Alive: a\r\nContent-Length: 2\r\n\r\nok" + ok(b"GET", 2), "open"),
        (b"", "open"),
    ],
)
def test_an_answer_that_was_not_meant_is_found(received: bytes, ending: str) -> None:
    both = seen(handed(line=b"GET /scripted HTTP/1.1") + BEHIND_BYTES)
    case = AnswerCase(name="ok", answer=b"")
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + ok(b"GET", 2)
    for data, is_right in ((received, False), (good, True)):
        found = Seen(client=CLIENT, received=data, ending=ending, links=both.links, arrived=both.arrived, crash=None)
        assert (not judge_answer(case, found)) is is_right


UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


def test_a_websocket_is_right_when_both_ends_were_asked_and_nothing_is_lost() -> None:
    case = next(case for case in ANSWERS["delivered"] if case.outcome == "switched")
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    upstream = seen(handed(UPGRADE + key, line=b"GET /scripted HTTP/1.1"))
    switched = b"HTTP/1.1 101 X\r\n" + UPGRADE + b"\r\n\x81\x02ok"
    for received, is_right in ((switched, True), (switched[:-1], False), (switched.replace(b"websocket", b"h2c"), False)):
        found = Seen(client=CLIENT, received=received, ending="open", links=upstream.links, arrived=upstream.arrived, crash=None)
        assert (not judge_answer(case, found)) is is_right
    asked = next(case for case in GROUPS["hops"] if case.name == "an upgrade to websocket")
    assert verdict(asked, seen(handed(UPGRADE + key) + BEHIND_BYTES)) == "right"
    assert verdict(asked, seen(handed(UPGRADE.partition(b"\n")[2] + key) + BEHIND_BYTES)) == "critical"


def test_a_client_of_the_old_version_sees_a_cut_by_the_missing_end_of_tls() -> None:
    case = next(case for case in ANSWERS["cut"] if "HTTP/1.0" in case.name and "within a chunk" in case.name)
    upstream = seen(handed(line=b"GET /scripted HTTP/1.1"))
    for ending, is_right in (("broken", True), ("closed", False), ("open", False)):
        half = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
        found = Seen(client=CLIENT, received=half, ending=ending, links=upstream.links, arrived=upstream.arrived, crash=None)
        assert (not judge_answer(case, found)) is is_right


@pytest.mark.parametrize("group", [*GROUPS, "http-desync-guardian"])
def test_the_corpus_says_what_an_independent_reading_says(group: str) -> None:
    """Nothing is to arrive that is no request to a strict reader, and no accepted case leaves a byte unread."""
    for case in GROUPS.get(group) or guardian():
        messages, left = read_requests(case.raw + (b"" if case.ends else FOLLOWING))
        read = [
            Arrival(
                method=message.start[0],
                target=origin_form(message.start[0], message.start[1], b"".join(message.values(b"host"))) or b"",
                body=message.body,
                host=b"".join(message.values(b"host")) or b"a.example",
            )
            for message in messages
        ]
        said = [Arrival(method=one.method, target=one.target, body=one.body, host=one.host) for one in case.arrives]
        assert read[: len(said)] == said, case.name
        if not case.refused and not case.ends and case.closes is not True:
            assert left is None, case.name
            assert read == [*said, BEHIND], case.name
        if case.optional:
            assert case.why, case.name


def test_no_case_is_there_twice_and_the_corpora_are_as_large_as_they_are_said_to_be() -> None:
    assert len(guardian()) == 159
    assert sum(len(cases) for cases in GROUPS.values()) >= 1000
    assert sum(len(cases) for cases in ANSWERS.values()) >= 200
    for group, cases in GROUPS.items():
        assert len({case.name for case in cases}) == len(cases), group
        assert len({case.raw for case in cases}) >= len(cases) - 6, group
    for answers in ANSWERS.values():
        assert len({case.name for case in answers}) == len(answers)


@pytest.mark.parametrize("case", ANSWERS["refused"], ids=lambda case: case.name)
def test_an_answer_that_is_to_be_refused_is_none_to_an_independent_reading(case: AnswerCase) -> None:
    """But for what is refused by policy: a protocol that is changed, and what is too large."""
    method = case.request.partition(b" ")[0]
    at, status = 0, 0
    try:
        while status < 101 or 101 < status < 200:
            answer, at = read_answer(case.answer, at, method=method, ended=case.closes)
            status = answer.status
    except (Doubt, Incomplete):
        return
    assert status == 101 or len(case.answer) > 100_000
