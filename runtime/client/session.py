"""An attested session: one TLS connection whose other end proved that it is in a measured enclave.

The certificate alone says little, since anyone who runs the parent may obtain one for the same name. What is believed is the evidence,
and only for the connection that it names: by its key, and by keying material that nobody else has.
"""

import base64
import hmac
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.net.endpoint import Endpoint, Tcp, connect
from runtime.net.http import HttpClient, Response
from runtime.net.tls import TlsStream, client_context
from runtime.protocol.binding import PUBLIC_EXPORTER_LABEL, PublicBinding, decode_binding, spki_digest
from runtime.protocol.errors import Malformed, Refused
from runtime.verifier.appraise import AttestationResult, appraise
from runtime.verifier.reference import AnyMeasurement, ReferenceValues

ATTESTATION_PATH = "/.well-known/attestation"
NONCE_SIZE = 32
DOCUMENT_MAX = 32 * 1024
BODY_MAX = 16 << 20
_STEP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a client believes. `ca` None: the certificate's chain is not judged, for the evidence names the key itself."""

    roots: Sequence[x509.Certificate]
    reference: ReferenceValues | AnyMeasurement | None
    ca: Sequence[x509.Certificate] | None = None
    allow_debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What was proved, and about which connection."""

    result: AttestationResult
    document: bytes
    config_digest: bytes
    spki_digest: bytes
    tls_version: str
    tls_group: str | None


class Session:
    """An open attested connection; `attested` says to whom."""

    def __init__(self, http: HttpClient, attested: Attested) -> None:
        self._http = http
        self.attested = attested

    async def request(self, method: str, target: str, *, body: bytes = b"") -> Response:
        """A request over the very connection that the evidence names. Raises `ProtocolError` and stream errors."""
        with trio.fail_after(_STEP_SECONDS):
            return await self._http.request(method, target, body=body, max_body=BODY_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL taken apart."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Raises ValueError for anything but https://HOST[:PORT][/]."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise ValueError(f"https://HOST[:PORT] expected: {url!r:.120}")
        return cls(host=parts.hostname, port=parts.port or 443)

    @property
    def url(self) -> str:
        """The URL, in its shortest form."""
        return f"https://{self.authority}"

    @property
    def authority(self) -> str:
        """What a Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


@asynccontextmanager
async def open_session(
    target: Target, policy: Policy, *, nonce: bytes, clock: Callable[[], datetime], address: Endpoint | None = None
) -> AsyncGenerator[Session]:
    """Connects, challenges and appraises. `nonce` is fresh and random; `address` is where to connect instead of the URL's host.

    Raises `AppraisalFailed` for a document that does not hold, `Refused` for one that is not about this connection (binding_kind,
    binding_key, binding_channel, config_digest_mismatch, evidence_unavailable), `ProtocolError` and OSError for the rest.
    """
    with trio.fail_after(_STEP_SECONDS):
        stream = await connect(address or Tcp(target.host, target.port))
        context = client_context(policy.ca, now=clock())
        tls = await TlsStream.connect(stream, context, server_name=target.host, check_name=policy.ca is not None)
    async with tls:
        http = HttpClient(tls, host=target.authority)
        yield Session(http, await _attest(tls, http, policy, nonce, clock))


async def _attest(tls: TlsStream, http: HttpClient, policy: Policy, nonce: bytes, clock: Callable[[], datetime]) -> Attested:
    query = base64.urlsafe_b64encode(nonce).decode().rstrip("=")
    with trio.fail_after(_STEP_SECONDS):
        response = await http.request(
            "GET", f"{ATTESTATION_PATH}?nonce={query}", headers=[("accept", "application/cbor")], max_body=DOCUMENT_MAX
        )
    if response.status != 200:
        raise Refused("evidence_unavailable", f"the enclave answered {response.status} instead of evidence")
    result = appraise(
        response.body,
        now=clock(),
        roots=policy.roots,
        reference=policy.reference,
        nonce=nonce,
        allow_debug=policy.allow_debug,
    )
    binding = _binding(result)
    key = _served_key(tls)
    if not hmac.compare_digest(binding.spki_digest, key):
        raise Refused("binding_key", "the evidence names another TLS key than this connection's")
    if binding.exporter is None or not hmac.compare_digest(binding.exporter, tls.exporter(PUBLIC_EXPORTER_LABEL, nonce)):
        raise Refused("binding_channel", "the evidence was made for another connection")
    expected = result.reference.config_digest if result.reference is not None else None
    if expected is not None and not hmac.compare_digest(expected, binding.config_digest):
        raise Refused("config_digest_mismatch", "the enclave runs another configuration than the reference value")
    return Attested(
        result=result,
        document=response.body,
        config_digest=binding.config_digest,
        spki_digest=key,
        tls_version=tls.version,
        tls_group=tls.group,
    )


def _binding(result: AttestationResult) -> PublicBinding:
    try:
        binding = decode_binding(result.user_data or b"")
    except Malformed as error:
        raise Refused("binding_kind", "the document carries no binding of this runtime") from error
    if not isinstance(binding, PublicBinding):
        raise Refused("binding_kind", "the document was made for another purpose than a client's evidence")
    return binding


def _served_key(tls: TlsStream) -> bytes:
    if tls.peer_certificate is None:
        raise Refused("binding_key", "the server showed no certificate")
    return spki_digest(tls.peer_certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
