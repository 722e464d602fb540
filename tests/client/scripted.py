"""An enclave's public port that says what a test tells it to, over real TLS, with a real module's signature under it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from urllib.parse import parse_qs

import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.client.session import Policy, Session, Target, open_session
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.traffic.attester import decode_base64
from runtime.net.endpoint import Endpoint, Tcp, bound, listen
from runtime.net.http import Request, Response, serve_http
from runtime.net.serve import serve
from runtime.net.tls import TlsIdentity, TlsStream, server_context
from runtime.protocol.binding import PUBLIC_EXPORTER_LABEL, encode_public, spki_digest
from runtime.protocol.digest import digest
from runtime.simulator.nsm import SimulatedNsm, make_module_id
from runtime.simulator.pki import Authority, make_root
from runtime.verifier.reference import Measurement, ReferenceValues
from tests.scenarios.boots import MemoryDevice
from tests.support.certificates import CA, make_ca

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
NAME = "app.test"
NONCE = bytes(range(32))
CONFIG_DIGEST = digest(b"the enclave.toml as baked")
REGISTERS = {0: b"\x01" * 48, 1: b"\x02" * 48, 2: b"\x03" * 48}
REFERENCE = ReferenceValues(measurements=(Measurement(name="app", pcrs=REGISTERS, epoch=1, config_digest=CONFIG_DIGEST),))


@dataclass(slots=True)
class Asked:
    """A request for evidence, and the connection that it came on."""

    request: Request
    tls: TlsStream
    nonce: bytes


@dataclass(kw_only=True)
class Scripted:
    """What a test decides. `evidence` gives the answer to the request for evidence; the others are answered with "hello".

    `last_bytes` are all that it says, in place of an answer; one that `is_silent` does not even shake hands.
    """

    root: Authority = field(default_factory=lambda: make_root(now=NOW))
    ca: CA = field(default_factory=lambda: make_ca("issuing CA", NOW))
    debug: bool = False
    asked: list[Request] = field(default_factory=list)
    at: Endpoint | None = None
    last_bytes: bytes = b""
    is_silent: bool = False

    def __post_init__(self) -> None:
        self.identity: TlsIdentity = self.ca.issue((NAME,))
        module = SimulatedNsm(
            self.root, module_id=make_module_id("i-0123456789abcdef0"), pcrs=REGISTERS, now=lambda: NOW, debug=self.debug
        )
        self.nsm = Nsm(MemoryDevice(module))
        self.evidence: Callable[[Asked], Awaitable[Response]] = self.honest

    async def honest(self, asked: Asked) -> Response:
        """What an enclave answers."""
        return found(await self.document(asked))

    async def document(self, asked: Asked, **changes: bytes | None) -> bytes:
        """A document about this connection; `changes` are of the fields of its binding, of `nonce` or of `user_data` as a whole."""
        fields = {
            "spki_digest": key_digest(self.identity),
            "exporter": asked.tls.exporter(PUBLIC_EXPORTER_LABEL, asked.nonce),
            "config_digest": CONFIG_DIGEST,
        } | {name: value for name, value in changes.items() if name not in ("nonce", "user_data")}
        user_data = changes.get("user_data", encode_public(**fields))  # type: ignore[arg-type] # a test names what it changes
        return await self.nsm.attest(nonce=changes.get("nonce", asked.nonce), user_data=user_data)

    def policy(self, **changes: object) -> Policy:
        """What a client believes that has everything right."""
        fields: dict[str, object] = {"roots": [self.root.certificate], "reference": REFERENCE, "ca": [self.ca.certificate]}
        return Policy(**fields | changes)  # type: ignore[arg-type] # a test names fields as it needs them

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection of a client."""
        if self.is_silent:
            await trio.sleep_forever()
        tls = await TlsStream.accept(stream, server_context([self.identity]))

        async def answer(request: Request) -> Response:
            self.asked.append(request)
            if request.path != "/.well-known/attestation":
                return found(b"hello")
            (nonce,) = parse_qs(request.query)["nonce"]
            return await self.evidence(Asked(request, tls, decode_base64(nonce)))

        if self.last_bytes:
            async with tls:
                await tls.receive_some()
                await tls.send_all(self.last_bytes)
        else:
            await serve_http(tls, answer, max_body=1 << 16)


@asynccontextmanager
async def serving(scripted: Scripted) -> AsyncIterator[None]:
    """Serves it on a port of the kernel's choice."""
    listener = await listen(Tcp("127.0.0.1", 0))
    scripted.at = bound(listener)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, listener, scripted.handle, limit=8))
        yield
        nursery.cancel_scope.cancel()


def connecting(
    scripted: Scripted, *, name: str = NAME, nonce: bytes = NONCE, **policy: object
) -> AbstractAsyncContextManager[Session]:
    """A client's session with a scripted enclave that is served."""
    return open_session(Target(host=name, port=443), scripted.policy(**policy), nonce=nonce, clock=lambda: NOW, address=scripted.at)


@asynccontextmanager
async def session(scripted: Scripted, **given: object) -> AsyncIterator[Session]:
    """The same, and served for so long."""
    async with serving(scripted), connecting(scripted, **given) as opened:  # type: ignore[arg-type] # passed on as it is
        yield opened


def found(body: bytes) -> Response:
    """Status 200 with a body."""
    return Response(200, (("content-type", "application/cbor"),), body)


def key_digest(identity: TlsIdentity) -> bytes:
    """The digest of an identity's public key, as a binding has it."""
    return spki_digest(identity.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
