"""The parent's local interface for `enclave status`, `logs` and `drain`: HTTP with JSON on a unix socket that only its owner opens.

```
GET  /status                    what runs, what the enclave last said
GET  /events                    the most recent events, oldest first
GET  /metrics                   the enclave's metrics, asked for now
POST /drain?deadline_ms=N       asks the enclave to finish and stop
```
"""

import json
from collections.abc import Mapping
from urllib.parse import parse_qs

import trio

from runtime.net.http import Request, Response, problem, serve_http
from runtime.parent.console import Console
from runtime.parent.control import Control, NotConnected
from runtime.protocol.link import DRAIN_MAX_MS

_METRICS_DEADLINE = 5.0


class StatusServer:
    """Handles connections of operators."""

    def __init__(self, control: Control, console: Console, *, enclave_id: str, listening: Mapping[str, str]) -> None:
        self._control = control
        self._console = console
        self._enclave_id = enclave_id
        self._listening = listening

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/serve.py)."""
        await serve_http(stream, self._answer, max_body=0)

    async def _answer(self, request: Request) -> Response:
        try:
            match request.method, request.path:
                case "GET", "/status":
                    return _json(self._status())
                case "GET", "/events":
                    return _json(list(self._console.recent))
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
        boot = self._control.boot
        return {
            "enclave": self._enclave_id,
            "connected": self._control.is_connected,
            "boot_id": boot and boot.boot_id.hex(),
            "state": boot and boot.state,
            "reason": boot and boot.reason,
            "dropped": boot and boot.dropped,
            "listening": dict(self._listening),
        }

    def _drain(self, query: str) -> Response:
        given = parse_qs(query).get("deadline_ms", [])
        if (
            len(given) != 1
            or not given[0].isascii()
            or not given[0].isdecimal()
            or len(given[0]) > 9
            or int(given[0]) > DRAIN_MAX_MS
        ):
            return problem(400, "bad_deadline", f"deadline_ms must be a number from 0 to {DRAIN_MAX_MS}")
        self._control.drain(int(given[0]))
        return Response(202)


def _json(value: object) -> Response:
    return Response(200, (("content-type", "application/json"),), json.dumps(value).encode())
