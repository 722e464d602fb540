"""A man in the middle who holds the provisioner's own TLS key: the strongest attacker that PROV/1 knows, for whoever tests against him.

Never baked. He terminates TLS on both sides, so he reads every message and may put another in its place. What he cannot have are the
release key, the lease keys, and keying material that is the same on both of his connections (protocol/README.md section 1.2).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal, TypeAlias

import trio
from cryptography import x509

from runtime.net.http import HttpClient, Request, Response, serve_http
from runtime.net.tls import TlsIdentity, TlsStream, client_context, server_context
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.messages import CONTENT_TYPE
from runtime.protocol.release import RELEASE_MAX

Name: TypeAlias = Literal["hello", "challenge", "evidence", "release", "confirm", "confirmed", "error"]
_ANSWERS: dict[Name, Name] = {"hello": "challenge", "evidence": "release", "confirm": "confirmed"}
_STEPS: dict[str, Name] = {"/prov/1/hello": "hello", "/prov/1/evidence": "evidence", "/prov/1/confirm": "confirm"}

Alter: TypeAlias = Callable[[Name, bytes], Awaitable[bytes]]
"""(message, its bytes): what is handed on in its place. May raise `trio.BrokenResourceError` to cut both connections there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A message as it came, in the clear."""

    name: Name
    data: bytes


class ManInTheMiddle:
    """Serves enclaves with `identity` and asks the provisioner, which `dial` connects to, in their stead.

    `alter` may be changed at any time. `roots` and `server_name` are what the provisioner is known by, `now` is the time.
    """

    def __init__(
        self,
        identity: TlsIdentity,
        *,
        roots: Sequence[x509.Certificate],
        server_name: str,
        dial: Callable[[], Awaitable[trio.SocketStream]],
        now: Callable[[], datetime],
    ) -> None:
        self.alter: Alter = untouched
        self.seen: list[Seen] = []
        self._context = server_context([identity], min_version="1.3")
        self._roots = roots
        self._server_name = server_name
        self._dial = dial
        self._now = now

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection of an enclave to its end."""
        async with await TlsStream.accept(stream, self._context) as enclave, await self.ask() as provisioner:
            client = HttpClient(provisioner, host=self._server_name)
            await serve_http(enclave, partial(self._answer, client), max_body=MESSAGE_MAX)

    async def ask(self) -> TlsStream:
        """A connection of his own to the provisioner."""
        context = client_context(self._roots, now=self._now(), min_version="1.3")
        return await TlsStream.connect(await self._dial(), context, server_name=self._server_name)

    def messages(self, name: Name) -> list[bytes]:
        """All messages of a name, as they came."""
        return [seen.data for seen in self.seen if seen.name == name]

    async def _answer(self, client: HttpClient, request: Request) -> Response:
        step = _STEPS[request.path]
        answer = await post(client, step, await self._pass(step, request.body))
        name: Name = _ANSWERS[step] if answer.status < 300 else "error"
        return Response(answer.status, answer.headers and (("content-type", CONTENT_TYPE),), await self._pass(name, answer.body))

    async def _pass(self, name: Name, data: bytes) -> bytes:
        self.seen.append(Seen(name=name, data=data))
        return await self.alter(name, data)


async def untouched(_: Name, data: bytes) -> bytes:
    """Alters nothing."""
    await trio.lowlevel.checkpoint()
    return data


async def post(client: HttpClient, step: str, body: bytes) -> Response:
    """The provisioner's answer to one message of PROV/1."""
    return await client.request(
        "POST", f"/prov/1/{step}", headers=[("content-type", CONTENT_TYPE)], body=body, max_body=RELEASE_MAX
    )
