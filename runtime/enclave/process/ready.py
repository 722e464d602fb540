"""Finds out whether a customer process is ready: by an HTTP request, a TCP connection or a command, as its config says."""

from collections.abc import Awaitable, Callable

import h11
import trio

from runtime.enclave.config import Ready
from runtime.enclave.config_values import Url
from runtime.net.endpoint import Tcp, connect
from runtime.net.http import HttpClient
from runtime.protocol.errors import ProtocolError

_BODY_MAX = 64 * 1024
_NOT_READY = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError, h11.RemoteProtocolError)

RunCommand = Callable[[tuple[str, ...]], Awaitable[bool]]
"""Runs a command the way the process itself runs; gives whether it exited with 0."""


async def follow_readiness(ready: Ready, run_command: RunCommand, on_change: Callable[[bool], None]) -> None:
    """Asks every `interval` for as long as it is not cancelled. Ready with the first yes; not ready any more after `failures` times no."""
    was_ready, failures = False, 0
    while True:
        begun = trio.current_time()
        answer = False
        with trio.move_on_after(ready.timeout):
            answer = await is_ready(ready, run_command)
        failures = 0 if answer else failures + 1
        if answer != was_ready and (answer or failures >= ready.failures):
            was_ready = answer
            on_change(answer)
        await trio.sleep_until(begun + ready.interval)


async def is_ready(ready: Ready, run_command: RunCommand) -> bool:
    """One question, one answer."""
    if ready.exec is not None:
        return await run_command(ready.exec)
    try:
        if ready.tcp is not None:
            await (await connect(ready.tcp)).aclose()
            return True
        assert ready.http is not None
        return await _answers(ready.http)
    except _NOT_READY:
        return False


async def _answers(url: Url) -> bool:
    async with await connect(Tcp(url.host, url.port)) as stream:
        response = await HttpClient(stream, host=f"{url.host}:{url.port}").request("GET", url.path or "/", max_body=_BODY_MAX)
        return 200 <= response.status < 400
