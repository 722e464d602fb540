"""Asks a customer process over HTTP or TCP whether it is ready. What it answers is a stranger's bytes, so it is read here."""

import h11
import trio

from runtime.enclave.config import Ready
from runtime.enclave.config_values import Url
from runtime.net.endpoint import Tcp, connect
from runtime.net.http import HttpClient
from runtime.protocol.errors import ProtocolError

_BODY_MAX = 64 * 1024
_NOT_READY = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError, h11.RemoteProtocolError)


async def is_ready(ready: Ready) -> bool:
    """One question, one answer; the deadline is the caller's."""
    try:
        if ready.tcp is not None:
            await (await connect(ready.tcp)).aclose()
            return True
        return ready.http is not None and await _answers(ready.http)
    except _NOT_READY:
        return False


async def _answers(url: Url) -> bool:
    async with await connect(Tcp(url.host, url.port)) as stream:
        response = await HttpClient(stream, host=f"{url.host}:{url.port}").request("GET", url.path or "/", max_body=_BODY_MAX)
        return 200 <= response.status < 400
