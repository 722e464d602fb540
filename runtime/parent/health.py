"""The parent's answers to load balancers and orchestrators: plain HTTP, three paths, nothing that could be asked for.

```
GET /livez       200 while the parent runs
GET /startupz    200 once the enclave has been ready in its present boot
GET /readyz      200 while the enclave is ready, its link is up and it was heard of in the last 15 s
```

Whether the enclave is ready is the enclave's word; that it is an enclave is not shown here at all (evidence is).
"""

import json
from collections.abc import Callable

import trio

from runtime.net.http import Request, Response, problem, serve_http
from runtime.parent.control import Control

HEAD_SECONDS = 5.0
IDLE_SECONDS = 30.0


class HealthServer:
    """Handles connections of whoever asks. `is_stopping`: whether the parent itself is about to end."""

    def __init__(self, control: Control, *, is_stopping: Callable[[], bool]) -> None:
        self._control = control
        self._is_stopping = is_stopping

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/serve.py)."""
        await serve_http(stream, self._answer, max_body=0, head_timeout=HEAD_SECONDS, idle_timeout=IDLE_SECONDS)

    async def _answer(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        match request.path:
            case "/livez":
                reason = ""
            case "/startupz":
                reason = "" if self._control.boot is not None and self._control.boot.was_ready else "not_started"
            case "/readyz":
                reason = self._why_not_ready()
            case _:
                return problem(404, "not_found", "/livez, /startupz and /readyz are here")
        if request.method not in {"GET", "HEAD"}:
            return problem(405, "method_not_allowed", f"{request.method} is not for {request.path}")
        return self._say(reason)

    def _why_not_ready(self) -> str:
        control = self._control
        if self._is_stopping():
            return "parent_stopping"
        if not control.is_connected:
            return "not_connected"
        if control.is_closing:
            return "draining"
        if not control.is_fresh:
            return "silent"
        return "" if control.is_ready else "not_ready"

    def _say(self, reason: str) -> Response:
        boot = self._control.boot
        now = trio.current_time()
        body = {
            "ok": not reason,
            "reason": reason,
            "state": boot and boot.state,
            "state_reason": boot and boot.reason,
            "age_s": boot and round(now - boot.since, 1),
            "heard_s": boot and round(now - boot.heard, 1),
        }
        headers = (("content-type", "application/json"), ("cache-control", "no-store"))
        return Response(503 if reason else 200, headers, json.dumps(body).encode())
