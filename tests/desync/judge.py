"""Whether what was seen of a case is right: what reached the customer process is what was decided, or the client got an error.

A fault is critical when bytes of doubt were handed on, a request came that nobody made, or a client got what was another's.
"""

import json
from dataclasses import dataclass

import h11

from tests.desync.cases import Arrival, Case, request
from tests.desync.reading import Doubt, Incomplete, Message, origin_form, read_answer, read_requests
from tests.desync.rig import Seen

BEHIND = Arrival(target=b"/behind")
FOLLOWING = request(line=b"GET /behind HTTP/1.1")
"""What is sent behind a case: it shows where the next request was read, or that none was."""

_HOPS = frozenset({b"keep-alive", b"te", b"trailer", b"proxy", b"proxy-connection", b"proxy-authorization", b"http2-settings"})
_UNIQUE = (
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip", b"upgrade", b"expect",
    b"connection", b"content-length", b"transfer-encoding", b"host",
)  # fmt: skip
_TRACES = (b"x-request-id", b"traceparent")
_NOT_IN_TRAILERS = frozenset(_UNIQUE) | frozenset(_TRACES) | _HOPS | {b"authorization", b"cookie", b"set-cookie"}
_VISIBLE = bytes(range(0x21, 0x7F))


@dataclass(frozen=True, slots=True)
class Fault:
    critical: bool
    text: str

    def __str__(self) -> str:
        return f"{'CRITICAL' if self.critical else 'wrong'}: {self.text}"


def judge(case: Case, seen: Seen) -> list[Fault]:
    """Everything that is wrong with what was seen of `case`; nothing when it was right."""
    sent = case.raw if case.ends else case.raw + FOLLOWING
    faults = handed_on(seen, sent=sent)
    answers, trouble = read_answers(seen, sent=sent)
    faults += trouble
    found = [message for _, message in seen.arrived]
    whole = [*case.arrives, BEHIND]
    if case.ends:
        faults += _same(found, list(case.arrives), seen)
        faults += _refused(answers[len(found) :], frozenset({400, 408}), seen, may_be_silent=True)
    elif case.refused and (not case.optional or (answers and answers[-1].status in case.refused)):
        faults += _same(found, [] if case.optional else list(case.arrives), seen)
        faults += _refused(answers[len(found) :], case.refused, seen)
    else:
        open_after = case.closes is False or (case.closes is None and len(found) > len(case.arrives))
        faults += _same(found, whole if open_after else whole[:-1], seen)
        for answer in answers[len(found) :]:
            faults.append(Fault(False, f"an answer of status {answer.status} where it is to be accepted"))
        if len(answers) < len(found):
            faults.append(Fault(False, f"{len(answers)} answers to {len(found)} requests"))
        if not open_after and seen.ending != "closed":
            faults.append(Fault(False, f"the connection is {seen.ending} behind the last answer"))
    return faults


def lawful(sent: bytes, seen: Seen) -> list[Fault]:
    """What must hold for any bytes of a client that then ends its side, whatever they are.

    An independent reading decides what the requests are: those that arrived are the first of them, each got its own answer, and then
    there is one refusal, or nothing left to answer. Being stricter than that reading is no fault.
    """
    faults = handed_on(seen, sent=sent)
    answers, trouble = read_answers(seen, sent=sent)
    faults += trouble
    count = len(seen.arrived)
    if len(answers) > count:
        statuses = frozenset(range(400, 506))
        return faults + _refused(answers[count:], statuses, seen)
    if len(answers) < count:
        faults.append(Fault(False, f"{len(answers)} answers to {count} requests"))
    read = read_requests(sent)[0]
    if count < len(read) and not (count and _is_last(read[count - 1])):
        faults.append(Fault(False, f"neither carried out nor refused: {read[count].start}"))
    if seen.ending != "closed":
        faults.append(Fault(False, f"the connection is {seen.ending}"))
    return faults


def _is_last(message: Message) -> bool:
    options = b",".join(message.values(b"connection")).lower().split(b",")
    return (
        message.start[2] == b"HTTP/1.0" or b"close" in [option.strip() for option in options] or b"upgrade" in dict(message.fields)
    )


def handed_on(seen: Seen, *, sent: bytes) -> list[Fault]:
    """What the customer process must never see, and what no reader of the client's bytes would find in them."""
    faults = [Fault(True, f"the ingress died: {seen.crash}")] if seen.crash else []
    count = 0
    read = [_essence(message) for message in read_requests(sent)[0]]
    if (came := [_essence(message) for _, message in seen.arrived]) != read[: len(came)]:
        faults.append(Fault(True, f"arrived: {came}, read by another: {read}"))
    for link in seen.links:
        messages, left = read_requests(bytes(link.data))
        count += len(messages)
        if left is not None and (left.startswith("doubt") or not link.ended):
            faults.append(
                Fault(
                    True, f"handed on: {left}; the connection {'ended' if link.ended else 'goes on'}: {bytes(link.data)[-200:]!r}"
                )
            )
        faults += _second_opinion(bytes(link.data), messages)
        for message in messages:
            faults += [Fault(True, f"{text}: {message.start} {message.fields}") for text in _unclean(message, seen, sent)]
            faults += [Fault(False, f"{text}: {message.fields}") for text in _untraceable(message)]
    if count != len(seen.arrived):
        faults.append(Fault(True, f"{count} requests are in the bytes, {len(seen.arrived)} were read"))
    return faults


def _unclean(message: Message, seen: Seen, sent: bytes) -> list[str]:
    method, target, version = message.start
    texts = []
    host = b"".join(message.values(b"host"))
    if version != b"HTTP/1.1" or not host or origin_form(method, target, host) != target:
        texts.append("not a request line for an origin server")
    names = [name.replace(b"_", b"-") for name, _ in message.fields]
    texts += [f"more than one {name!r}" for name in _UNIQUE if names.count(name) > 1]
    texts += [f"a field of the hop, {name!r}" for name in names if name in _HOPS]
    texts += [f"a trailer {name!r}" for name, _ in message.trailers if name.replace(b"_", b"-") in _NOT_IN_TRAILERS]
    texts += [f"the client's own {name!r}" for name in names if name.startswith(b"x-forwarded") and name not in _UNIQUE]
    texts += [f"{name!r} in disguise" for name, _ in message.fields if b"_" in name and name.replace(b"_", b"-") in _UNIQUE]
    if (b"upgrade" in names) != (b"upgrade" in b",".join(message.values(b"connection")).lower()):
        texts.append("half an upgrade")
    lowered = sent.lower()
    texts += [
        f"a field from nowhere, {name!r}" for name, _ in message.fields if name not in (*_UNIQUE, *_TRACES) and name not in lowered
    ]
    client = seen.client.encode()
    texts += [
        f"{name!r} is {message.values(name)}"
        for name, value in ((b"x-forwarded-for", client), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", host))
        if message.values(name) != [value]
    ]
    if message.values(b"x-real-ip") not in ([], [client]):
        texts.append("another's X-Real-IP")
    forwarded = b"".join(message.values(b"forwarded")).lower()
    if client not in forwarded or b"proto=https" not in forwarded or b"," in forwarded:
        texts.append("another's Forwarded")
    return texts


def _untraceable(message: Message) -> list[str]:
    names = [name.replace(b"_", b"-") for name, _ in message.fields]
    texts = [f"more than one {name!r}" for name in _TRACES if names.count(name) > 1]
    texts += [f"{name!r} in disguise" for name, _ in message.fields if b"_" in name and name.replace(b"_", b"-") in _TRACES]
    for value in message.values(b"x-request-id"):
        if not 0 < len(value) <= 256 or value.translate(None, _VISIBLE):
            texts.append("an X-Request-Id that is none")
    texts += ["a traceparent that is none" for value in message.values(b"traceparent") if not _is_traceparent(value)]
    return texts


def _essence(message: Message) -> tuple[bytes, bytes | None, bytes]:
    method, target, _ = message.start
    return method, origin_form(method, target, b"".join(message.values(b"host"))), message.body


def _is_traceparent(value: bytes) -> bool:
    """https://www.w3.org/TR/trace-context/#traceparent-header"""
    version, _, rest = value.partition(b"-")
    trace, _, rest = rest.partition(b"-")
    parent, _, flags = rest.partition(b"-")
    if [len(part) for part in (version, trace, parent, flags)] != [2, 32, 16, 2] or version == b"ff":
        return False
    return (
        not (version + trace + parent + flags).translate(None, b"0123456789abcdef")
        and any(trace.strip(b"0"))
        and any(parent.strip(b"0"))
    )


def _second_opinion(data: bytes, messages: list[Message]) -> list[Fault]:
    """h11 reads the same requests out of the same bytes."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    found: list[tuple[bytes, bytes, bytes]] = []
    method, target, body = b"", b"", b""
    try:
        while len(found) < len(messages):
            event = connection.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method, event.target, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, target, body))
                if connection.client_is_waiting_for_100_continue or connection.our_state is h11.SEND_RESPONSE:
                    connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    connection.send(h11.EndOfMessage())
                if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                    connection.start_next_cycle()
            elif event is not h11.PAUSED:
                break
            else:
                break
    except h11.ProtocolError as error:
        return [Fault(True, f"another reader says: {error}")]
    if found != [(message.start[0], message.start[1], message.body) for message in messages]:
        return [Fault(True, f"two readers differ: {found}")]
    return []


def read_answers(seen: Seen, *, sent: bytes) -> tuple[list[Message], list[Fault]]:
    """The final answers that the client got. Each that comes from the customer process must be the one to that very request."""
    answers: list[Message] = []
    at = 0
    while at < len(seen.received):
        index = len(answers)
        method = seen.arrived[index][1].start[0] if index < len(seen.arrived) else b""
        if not method and b"HEAD " in sent and seen.received.endswith(b"\r\n\r\n"):
            method = b"HEAD"  # what was refused may have been one
        try:
            answer, at = read_answer(seen.received, at, method=method, ended=seen.ending != "open")
        except (Doubt, Incomplete) as error:
            return answers, [Fault(True, f"the client got no answer but {error}: {seen.received[at:][:200]!r}")]
        if answer.status >= 200:
            answers.append(answer)
        elif answer.status == 101:
            return answers, [Fault(True, "a protocol was changed")]
    faults = []
    for answer, (serial, message) in zip(answers, seen.arrived, strict=False):
        if answer.status != 200 or (answer.body != b"%d" % serial and message.start[0] != b"HEAD"):
            faults.append(Fault(True, f"to {message.start} came {answer.start} {answer.body[:100]!r}, not {serial}"))
    return answers, faults


def _same(found: list[Message], expected: list[Arrival], seen: Seen) -> list[Fault]:
    faults = []
    for message, arrival in zip(found, expected, strict=False):
        method, target, _ = message.start
        host = message.values(b"host")
        if (method, target, message.body, host) != (arrival.method, arrival.target, arrival.body, [arrival.host]):
            faults.append(Fault(True, f"arrived: {message}, not {arrival}"))
        lines = [name + b": " + (value.lower() if name in (b"connection", b"upgrade") else value) for name, value in message.fields]
        faults += [Fault(False, f"{line[:80]!r} is missing in {lines}") for line in arrival.has if line not in lines]
        names = [name for name, _ in message.fields + message.trailers]
        faults += [Fault(True, f"{name!r} is still there") for name in arrival.lacks if name in names]
    for message in found[len(expected) :]:
        faults.append(Fault(False, f"a request arrived that is to be refused: {message.start}"))
    if len(found) < len(expected):
        faults.append(Fault(False, f"{len(found)} of {len(expected)} requests arrived; the client got {seen.received[-300:]!r}"))
    return faults


def _refused(answers: list[Message], statuses: frozenset[int], seen: Seen, *, may_be_silent: bool = False) -> list[Fault]:
    """One problem document (RFC 9457) and the end of the connection."""
    if not answers:
        return [] if may_be_silent else [Fault(False, f"no refusal; the connection is {seen.ending}")]
    faults = [Fault(True, f"another answer behind the refusal: {answer.start}") for answer in answers[1:]]
    answer = answers[0]
    if answer.status not in statuses:
        faults.append(Fault(answer.status < 400, f"{answer.start[1]!r} {answer.body!r}, not of {sorted(statuses)}"))
    if not is_problem(answer):
        faults.append(Fault(False, f"no problem document: {answer}"))
    if [value.lower() for value in answer.values(b"connection")] != [b"close"]:
        faults.append(Fault(False, "the refusal does not say that the connection ends"))
    if seen.ending == "open":
        faults.append(Fault(False, "the connection is open behind a refusal"))
    return faults


def is_problem(answer: Message) -> bool:
    """Whether it is a problem document (RFC 9457) of its own status; to HEAD there is only its head."""
    if answer.values(b"content-type") != [b"application/problem+json"]:
        return False
    if answer.framing == "none":
        return True
    try:
        document = json.loads(answer.body)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("status") == answer.status
