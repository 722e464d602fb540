"""The parent's local interface for `enclave status`, `logs` and `drain`: HTTP with JSON on a unix socket that only its owner opens.

```
GET  /status                    what runs, what the enclave last said, and how it came there
GET  /events?after=N&wait=S     events with a higher number than N, oldest first; waits up to S seconds for the first
GET  /metrics                   the enclave's metrics, asked for now
POST /drain?deadline_ms=N       asks the enclave to finish and stop
```
"""

import json
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

import trio

from runtime.net.http import Request, Response, problem, serve_http
from runtime.parent.console import Console
from runtime.parent.control import Control, NotConnected
from runtime.parent.record import Boot
from runtime.protocol.link import DRAIN_MAX_MS

WAIT_MAX = 30
"""Seconds that a question for events may wait for an answer."""
EVENTS_BYTES = 256 * 1024
"""Of events in one answer, about; one event may have more."""

_METRICS_DEADLINE = 5.0
_NUMBER_MAX = 2**53


class StatusServer:
    """Handles connections of operators."""

    def __init__(
        self,
        control: Control,
        console: Console,
        *,
        enclave_id: str,
        listening: Mapping[str, str],
        egress: Callable[[], Mapping[str, object]],
    ) -> None:
        self._control = control
        self._console = console
        self._enclave_id = enclave_id
        self._listening = listening
        self._egress = egress

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/serve.py)."""
        await serve_http(stream, self._answer, max_body=0)

    async def _answer(self, request: Request) -> Response:
        try:
            match request.method, request.path:
                case "GET", "/status":
                    return _json(self._status())
                case "GET", "/events":
                    return await self._events(request.query)
                case "GET", "/metrics":
                    with trio.fail_after(_METRICS_DEADLINE):
                        return _json(dict(await self._control.metrics()))
                case "POST", "/drain":
                    return self._drain(request.query)
                case _, "/status" | "/events" | "/metrics" | "/drain":
                    return problem(405, "method_not_allowed", f"{request.method} is not for {request.path}")
                case _:
                    return problem(404, "not_found", "nothing is here")
        except NotConnected as error:
            return problem(503, "enclave_not_connected", str(error))
        except trio.TooSlowError:
            return problem(504, "enclave_timeout", "the enclave did not answer in time")

    def _status(self) -> dict[str, object]:
        control, boot = self._control, self._control.boot
        return {
            "enclave": self._enclave_id,
            "connected": control.is_connected,
            "boot_id": boot and boot.boot_id.hex(),
            "state": boot and boot.state,
            "reason": boot and boot.reason,
            "dropped": boot and boot.dropped,
            "listening": dict(self._listening),
            "ready": control.is_ready,
            "drain_left_s": control.drain_seconds_left,
            "tickets": {"given": control.tickets_given, "refused": control.ticket_refused},
            "egress": self._egress(),
            "event": self._console.count,
            "boot": None if boot is None else _boot(boot, trio.current_time()),
        }

    async def _events(self, query: str) -> Response:
        try:
            after, wait = _number(query, "after", 0, _NUMBER_MAX), _number(query, "wait", 0, WAIT_MAX)
        except ValueError as error:
            return problem(400, "bad_query", str(error))
        with trio.move_on_after(wait):
            await self._console.until_after(after)
        count, kept = self._console.count, len(self._console.recent)
        found = self._console.after(after, most_bytes=EVENTS_BYTES)
        first = max(after, count - kept)
        missed = max(0, first - after)
        head = f'{{"next": {first + len(found)}, "last": {count}, "missed": {missed}, "events": ['
        return Response(200, _JSON, (head + ", ".join(found) + "]}").encode())

    def _drain(self, query: str) -> Response:
        try:
            deadline_ms = _number(query, "deadline_ms", None, DRAIN_MAX_MS)
        except ValueError as error:
            return problem(400, "bad_deadline", str(error))
        self._control.drain(deadline_ms)
        return Response(202)


_JSON = (("content-type", "application/json"),)


def _json(value: object) -> Response:
    return Response(200, _JSON, json.dumps(value).encode())


def _number(query: str, name: str, default: int | None, most: int) -> int:
    """A number of the query, at most once. Raises ValueError."""
    given = parse_qs(query, keep_blank_values=True).get(name, [])
    if not given and default is not None:
        return default
    if len(given) != 1 or not given[0].isascii() or not given[0].isdecimal() or len(given[0]) > 16 or int(given[0]) > most:
        raise ValueError(f"{name} must be a number from 0 to {most}")
    return int(given[0])


def _boot(boot: Boot, now: float) -> dict[str, object]:
    """The history of a boot; seconds since the parent first heard of it, or ago."""
    return {
        "age_s": round(now - boot.began, 3),
        "heard_s": round(now - boot.heard, 3),
        "state_age_s": round(now - boot.since, 3),
        "was_ready": boot.was_ready,
        "failed_stage": boot.failed_stage,
        "stages": [{"stage": each.name, "ended_ms": each.ended_ms, "took_ms": each.took_ms} for each in boot.stages.values()],
        "states": [{"at_s": round(at, 3), "state": state.name, "reason": state.reason} for at, state in boot.states],
        "exits": [
            {"at_s": round(at, 3), "process": exit_.process, "code": exit_.code, "signal": exit_.signal} for at, exit_ in boot.exits
        ],
    }
