"""The attestation API for the customer process, on a loopback port and a unix socket inside the enclave.

The application is believed in nothing but its own challenge: every document made here says "app" in its user_data, so none can pass
for evidence of the public port or for a provisioner. What the NSM would refuse is refused before the device is touched.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from runtime.enclave.traffic.attester import (
    NONCE_MAX,
    PUBLIC_KEY_MAX,
    USER_DATA_MAX,
    Attester,
    BoundedAttester,
    decode_base64,
    prefers,
)
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.http import Request, Response, serve_http
from runtime.net.serve import serve
from runtime.protocol import binding

BODY_MAX = 8 * 1024
"""Bytes of a request's body."""

_KEYS = ("nonce", "challenge", "publicKey")
_METHODS = {"/attestation-doc": "POST", "/livez": "GET, HEAD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalApiLimits:
    """Connections at once on each listener, and requests that wait for the device, together."""

    connections: int = 1024
    waiting_max: int = 64


async def serve_local_api(
    listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
    attester: Attester,
    *,
    limits: LocalApiLimits = LocalApiLimits(),
    on_error: Callable[[BaseException], None] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves the API on every listener until all are closed; owns them. `on_error` hears of connections that ended badly."""
    api = LocalApi(attester, waiting_max=limits.waiting_max)

    async def handle(stream: trio.SocketStream) -> None:
        await serve_http(stream, api.answer, max_body=BODY_MAX)

    async with trio.open_nursery() as nursery:
        for listener in listeners:
            await nursery.start(partial(serve, listener, handle, limit=limits.connections, on_error=on_error))
        task_status.started()


class LocalApi:
    """The API as a function of requests."""

    def __init__(self, attester: Attester, *, waiting_max: int) -> None:
        self._attester = BoundedAttester(attester, waiting_max=waiting_max)

    async def answer(self, request: Request) -> Response:
        """The answer to one request; errors are problem documents."""
        allowed = _METHODS.get(request.path)
        try:
            if allowed is None:
                raise Refusal(404, "not_found", "there is /attestation-doc and /livez")
            if request.method not in allowed.split(", "):
                refused = Refusal(405, "method_not_allowed", f"this path takes {allowed}").response
                return Response(refused.status, (*refused.headers, ("allow", allowed)), refused.body)
            if request.path == "/livez":
                return Response(200, (("content-type", "text/plain"), ("cache-control", "no-store")), b"ok\n")
            document = await self._attest(request)
        except Refusal as refusal:
            return refusal.response
        if prefers(request.header("accept"), "application/json", over="application/cbor"):
            media_type, body = "application/json", json.dumps({"attestation_doc": base64.b64encode(document).decode()}).encode()
        else:
            media_type, body = "application/cbor", document
        return Response(200, (("content-type", media_type), ("cache-control", "no-store")), body)

    async def _attest(self, request: Request) -> bytes:
        fields = _fields(request)
        nonce, public_key = fields.get("nonce"), fields.get("publicKey")
        user_data = binding.encode_app(fields.get("challenge", b""))
        _require_size("nonce", nonce, NONCE_MAX)
        _require_size("publicKey", public_key, PUBLIC_KEY_MAX)
        _require_size("challenge", user_data, USER_DATA_MAX)
        return await self._attester.attest(nonce=nonce, user_data=user_data, public_key=public_key)


def _fields(request: Request) -> dict[str, bytes]:
    """The bytes of each key that the body gives; null is as good as absent.

    Whatever Content-Type says, the body is JSON: there is no other form to confuse it with, and no browser to protect in here.
    """
    try:
        document = json.loads(request.body, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        raise Refusal(400, "bad_json", "the body is not JSON") from None
    if not isinstance(document, dict):
        raise Refusal(400, "bad_json", "the body is not a JSON object")
    fields: dict[str, bytes] = {}
    for key, value in document.items():
        if key not in _KEYS:
            raise Refusal(400, "unknown_key", f"{key!r:.60} is none of {', '.join(_KEYS)}")
        if value is None:
            continue
        if not isinstance(value, str):
            raise Refusal(400, "wrong_type", f"{key} must be a string of base64")
        try:
            fields[key] = decode_base64(value)
        except ValueError:
            raise Refusal(400, "bad_base64", f"{key} is not base64") from None
    return fields


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Refusal(400, "duplicate_key", "a key is given more than once")
    return document


def _require_size(key: str, value: bytes | None, most: int) -> None:
    if value is not None and len(value) > most:
        what = " in user_data, the wrapper included," if key == "challenge" else ""
        raise Refusal(413, "too_large", f"{key} has {len(value)} bytes{what} and at most {most} are allowed")
