"""Evidence for clients on the public port: a fresh attestation document that names this TLS key, this connection and this config.

Runs in the ingress worker. Clients are strangers: what they can make the device do is limited by address and in all. The document
is made for the leaf that was served on the connection that asks, so it can never vouch for a certificate that is no longer served.
"""

import base64
import json
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.enclave.traffic.attester import Attester, BoundedAttester, decode_base64, prefers
from runtime.enclave.traffic.refusal import Refusal
from runtime.net.buckets import TokenBuckets, client_network
from runtime.net.http import Request, Response
from runtime.protocol import binding

DEFAULT_PATH = "/.well-known/attestation"
NONCE_LEAST = 16
NONCE_MOST = 64
_CACHED_LEAVES_MAX = 16
_FAILURE_SECONDS = 1.0  # those who waited together for a document that could not be made do not each wait for the device in turn


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceLimits:
    """Requests of one address: `burst` at once and `rate` a second. `waiting_max` wait for the device, from all addresses together."""

    rate: float = 5.0
    burst: int = 20
    addresses_max: int = 10_000
    waiting_max: int = 64
    cache_seconds: float = 30.0


class TlsConnection(Protocol):
    """What is asked of the client's connection; `runtime.net.tls.TlsStream` has it."""

    @property
    def own_certificate(self) -> x509.Certificate | None:
        """The leaf that was served on it."""
        ...

    def exporter(self, label: bytes, context: bytes, size: int = 32) -> bytes:
        """Keying material of it alone (RFC 5705, RFC 8446 section 7.5)."""
        ...


@dataclass(frozen=True, slots=True)
class _Cached:
    """A document that names no connection, or that there was none, until a moment of the monotonic clock."""

    outcome: bytes | Refusal
    until: float


class PublicEvidence:
    """Answers requests for evidence; one for all connections of a worker."""

    def __init__(self, attester: Attester, *, config_digest: bytes, limits: EvidenceLimits = EvidenceLimits()) -> None:
        self._attester = BoundedAttester(attester, waiting_max=limits.waiting_max)
        self._config_digest = config_digest
        self._limits = limits
        self._buckets = TokenBuckets(rate=limits.rate, burst=limits.burst, most_keys=limits.addresses_max)
        self._cache: dict[bytes, _Cached] = {}
        self._making = trio.Lock()
        self._waiting = 0

    async def answer(self, request: Request, *, client: str, connection: TlsConnection) -> Response:
        """The answer to any request on the attestation path; `client` is the address that the rate limit counts. Never raises `Refusal`."""
        try:
            return await self._answer(request, client, connection)
        except Refusal as refusal:
            return refusal.response

    async def _answer(self, request: Request, client: str, connection: TlsConnection) -> Response:
        if request.method not in {"GET", "HEAD"}:
            refused = Refusal(405, "method_not_allowed", "evidence is asked for with GET").response
            return Response(refused.status, (*refused.headers, ("allow", "GET, HEAD")), refused.body)
        if wait := self._buckets.take(client_network(client), now=trio.current_time()):
            raise Refusal(429, "rate_limited", "too many requests for evidence from this address", retry_after=wait)
        nonce = _nonce(request.query)
        leaf = _leaf_digest(connection)
        if nonce is None:
            document = await self._cached(leaf)
            caching = f"public, max-age={self._limits.cache_seconds:.0f}"
        else:
            exporter = connection.exporter(binding.PUBLIC_EXPORTER_LABEL, nonce, binding.EXPORTER_SIZE)
            document = await self._make(leaf, nonce=nonce, exporter=exporter)
            caching = "no-store"
        if prefers(request.header("accept"), "application/cbor", over="application/json"):
            media_type, body = "application/cbor", document
        else:
            media_type, body = "application/json", json.dumps({"attestation_doc": base64.b64encode(document).decode()}).encode()
        return Response(200, (("content-type", media_type), ("cache-control", caching), ("vary", "accept")), body)

    async def _make(self, leaf: bytes, *, nonce: bytes | None, exporter: bytes | None) -> bytes:
        user_data = binding.encode_public(spki_digest=leaf, exporter=exporter, config_digest=self._config_digest)
        return await self._attester.attest(nonce=nonce, user_data=user_data, public_key=None)

    async def _cached(self, leaf: bytes) -> bytes:
        """The document for a leaf, made at most once in `cache_seconds`: whoever comes while it is made waits for it."""
        if self._lookup(leaf) is None:
            if self._waiting > self._limits.waiting_max:
                raise Refusal(503, "attestation_busy", "too many requests are waiting for evidence", retry_after=1)
            self._waiting += 1
            try:
                async with self._making:
                    if self._lookup(leaf) is None:
                        await self._fill(leaf)
            finally:
                self._waiting -= 1
        outcome = self._cache[leaf].outcome
        if isinstance(outcome, Refusal):
            raise outcome.with_traceback(None)
        return outcome

    def _lookup(self, leaf: bytes) -> _Cached | None:
        cached = self._cache.get(leaf)
        return cached if cached is not None and trio.current_time() < cached.until else None

    async def _fill(self, leaf: bytes) -> None:
        outcome: bytes | Refusal
        try:
            outcome, seconds = await self._make(leaf, nonce=None, exporter=None), self._limits.cache_seconds
        except Refusal as refusal:
            outcome, seconds = refusal, _FAILURE_SECONDS
        self._cache.pop(leaf, None)
        self._cache[leaf] = _Cached(outcome, trio.current_time() + seconds)
        if len(self._cache) > _CACHED_LEAVES_MAX:
            del self._cache[next(iter(self._cache))]


def _nonce(query: str) -> bytes | None:
    """The nonce of a query, None when there is none. Other parameters mean nothing here."""
    try:
        values = [value for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=16) if name == "nonce"]
    except ValueError:
        raise Refusal(400, "bad_query", "too many query parameters") from None
    if not values:
        return None
    if len(values) > 1:
        raise Refusal(400, "duplicate_nonce", "nonce is given more than once")
    text = values[0]
    try:
        if set(text) & set("+/ "):
            raise ValueError("another alphabet")
        nonce = decode_base64(text)
    except ValueError:
        raise Refusal(400, "bad_nonce", "nonce is not base64url") from None
    if not NONCE_LEAST <= len(nonce) <= NONCE_MOST:
        raise Refusal(400, "bad_nonce", f"nonce must have {NONCE_LEAST} to {NONCE_MOST} bytes")
    return nonce


def _leaf_digest(connection: TlsConnection) -> bytes:
    leaf = connection.own_certificate
    if leaf is None:
        raise Refusal(500, "no_certificate", "this connection has no certificate to vouch for")
    return binding.spki_digest(leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
