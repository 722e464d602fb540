"""Whether the client got the answer that was decided, an error, or a cut that it can see; and nothing that was another's."""

from dataclasses import replace

from tests.desync.answers.cases import AnswerCase
from tests.desync.judge import FOLLOWING, Fault, handed_on, is_problem
from tests.desync.reading import Doubt, Incomplete, Message, read_answer
from tests.desync.rig import SCRIPTED, Rig, Script, Seen

_SINGLY_MAX = 2000
_ANY = 0
_HOPS = frozenset({b"keep-alive", b"te", b"trailer", b"proxy-connection", b"upgrade"})


async def answer_outcome(rig: Rig, case: AnswerCase, *, singly: bool = False) -> list[Fault]:
    """The faults of one case, its answer in one piece or byte by byte."""
    pieces = _pieces(case) if singly else (case.answer,)
    script = Script(pieces=pieces, closes=case.closes, early=case.early)
    seen = await rig.run([_sent(case)], script=script, enough=lambda seen: not judge_answer(case, seen))
    return judge_answer(case, seen)


def _pieces(case: AnswerCase) -> tuple[bytes, ...]:
    """Byte by byte, long answers in three pieces. What follows an answer comes with it: later it would be the next one's answer."""
    data = case.answer
    single = len(data) if case.clean or not case.follows else data.find(b"\r\n\r\n") + 3
    if len(data) > _SINGLY_MAX:
        return tuple(data[at : at + len(data) // 3 + 1] for at in range(0, len(data), len(data) // 3 + 1))
    return tuple(piece for piece in (*(data[at : at + 1] for at in range(single)), data[single:]) if piece)


def _sent(case: AnswerCase) -> bytes:
    return case.request + (FOLLOWING if case.follows else b"")


def judge_answer(case: AnswerCase, seen: Seen) -> list[Fault]:
    """Everything that is wrong with what was seen of `case`."""
    faults = [] if case.early else handed_on(seen, sent=_sent(case))
    method, _, rest = case.request.partition(b" ")
    old = b" HTTP/1.0\r\n" in rest
    try:
        answer, at = _final(seen.received, method, ended=seen.ending != "open")
    except Doubt as error:
        return [*faults, Fault(True, f"the client got {error}: {seen.received[:200]!r}")]
    except Incomplete as error:
        if case.outcome != "cut" and not case.optional:
            faults.append(Fault(False, f"the client got {error}: {seen.received[:200]!r}"))
        return faults + _cut(case, seen)
    data = seen.received[at:]
    is_error = answer.status in (501, 502) and is_problem(answer)
    faults += [Fault(True, f"a field of the hop: {name!r}") for name, _ in answer.fields if name in _HOPS and answer.status != 101]
    if answer.start[0] != b"HTTP/1.1" or (old and answer.framing == "chunked"):
        faults.append(Fault(False, f"{answer.start} {answer.framing} is not what the client speaks"))
    if old and case.outcome == "cut" and not is_error and answer.framing == "close" and seen.ending == "broken":
        return faults  # the end of TLS is missing, which is all that such a client can see
    if case.outcome in ("refused", "cut"):
        if not is_error:
            faults.append(Fault(answer.body != b"ok", f"delivered: {answer}"))
        elif answer.status != 502:
            faults.append(Fault(False, f"{answer.status}, not 502"))
    elif case.outcome == "switched":
        if (answer.status, data) != (101, case.body) or [value.lower() for value in answer.values(b"upgrade")] != [b"websocket"]:
            faults.append(Fault(False, f"not switched: {answer} {data!r}"))
        return faults
    elif not (is_error and case.optional):
        faults += _delivered(case, answer)
    return faults + _behind(case, seen, data)


def lawful_answer(sent: bytes, script: Script, seen: Seen) -> list[Fault]:
    """What must hold for any bytes of the customer process: an independent reading decides what its answer is, if it is one.

    The client got that answer, or 502, or what it can see is not whole; being stricter than the reading is no fault. What is sent
    behind the request gets its own answer or none.
    """
    answer = b"".join(script.pieces)
    case = AnswerCase(name="", answer=answer, request=sent, closes=script.closes, outcome="cut", status=_ANY)
    try:
        meant, _ = _final(answer, sent.partition(b" ")[0], ended=script.closes, sloppy=True)
    except (Doubt, Incomplete):
        pass
    else:
        if meant.status != 101:
            case = replace(case, outcome="delivered", optional=True, status=meant.status, body=meant.body)
    faults = judge_answer(case, seen)
    if case.outcome == "cut":  # what is not whole may yet become so
        return [fault for fault in faults if fault.critical or seen.ending != "open"]
    return faults


def _final(data: bytes, method: bytes, *, ended: bool, sloppy: bool = False) -> tuple[Message, int]:
    at = 0
    while True:
        answer, at = read_answer(data, at, method=method, ended=ended, sloppy=sloppy)
        if answer.status >= 200 or answer.status == 101:
            return answer, at


def _cut(case: AnswerCase, seen: Seen) -> list[Fault]:
    """Not whole and over: what came was the beginning of the answer."""
    faults = []
    if seen.ending == "open":
        faults.append(Fault(False, "half an answer, and the connection is open"))
    if seen.received and case.status != _ANY and not seen.received.startswith(b"HTTP/1.1 %d " % case.status):
        faults.append(Fault(True, f"a cut of another answer: {seen.received[:200]!r}"))
    if b"poison" in seen.received and case.status != _ANY:
        faults.append(Fault(True, "poison in the answer"))
    if len(seen.arrived) > 1:
        faults.append(Fault(False, "a request behind half an answer was carried out"))
    return faults


def _delivered(case: AnswerCase, answer: Message) -> list[Fault]:
    faults = []
    if answer.status != case.status:
        faults.append(Fault(answer.status < 400, f"{answer.start} {answer.body[:200]!r}, not {case.status}"))
    elif answer.body != case.body:
        faults.append(Fault(True, f"the body is {answer.body[:100]!r}"))
    lines = [name + b": " + value for name, value in answer.fields]
    faults += [Fault(False, f"{line!r} is missing in {lines}") for line in case.has if line not in lines]
    names = [name for name, _ in answer.fields + answer.trailers]
    faults += [Fault(True, f"{name!r} is still there") for name in case.lacks if name in names]
    return faults


def _behind(case: AnswerCase, seen: Seen, data: bytes) -> list[Fault]:
    """The next request gets its own answer, over another connection when this one was in doubt, or none and the connection ends."""
    if not data:
        if seen.ending == "open" and (case.follows or case.early):
            return [Fault(False, "no answer to the next request, and the connection is open")]
        return []
    try:
        answer, at = read_answer(data, 0, method=b"GET", ended=seen.ending != "open")
    except (Doubt, Incomplete) as error:
        return [Fault(True, f"behind the answer came {error}: {data[:200]!r}")]
    behind = [serial for serial, message in seen.arrived if message.start[1] != SCRIPTED]
    if at != len(data) or len(behind) != 1 or (answer.status, answer.body) != (200, b"%d" % behind[0]):
        return [Fault(True, f"to the next request came {data[:200]!r}")]
    if not case.clean and len(seen.links) != 2:
        return [Fault(False, "a connection in doubt was used again")]
    return []
