"""The way from a request to the NSM and back, the same for public evidence and for the local API.

The device makes one document at a time in tens of milliseconds. Whoever cannot be served soon is told so at once, because a queue
without a bound would only move the failure to everybody's deadline.
"""

import base64
import binascii
from typing import Protocol

from runtime.enclave.identity.nsm import NsmError
from runtime.enclave.traffic.refusal import Refusal

NONCE_MAX = USER_DATA_MAX = 512
PUBLIC_KEY_MAX = 1024
"""Bytes that the NSM takes in each field of a document."""

_PASSING = frozenset(f"nsm_{reason}" for reason in ("stalled", "busy", "timeout", "interrupted", "no_data", "io", "unavailable"))
"""Reasons of `NsmError` that say nothing about the request: it may be tried again."""

_RETRY_AFTER = 1


class Attester(Protocol):
    """Makes attestation documents; `runtime.enclave.identity.nsm.Nsm` or whatever speaks for it in a worker. Raises `NsmError`."""

    async def attest(self, *, nonce: bytes | None, user_data: bytes | None, public_key: bytes | None) -> bytes:
        """The document, as the NSM made it."""
        ...


class BoundedAttester:
    """At most one document in the making and `waiting_max` requests waiting for theirs; `Refusal` (503) for the others."""

    def __init__(self, attester: Attester, *, waiting_max: int) -> None:
        self._attester = attester
        self._most = waiting_max + 1
        self._pending = 0

    async def attest(self, *, nonce: bytes | None, user_data: bytes, public_key: bytes | None) -> bytes:
        """The document. Raises `Refusal`: 503 when the device cannot be used now, 500 when it refuses."""
        if self._pending >= self._most:
            raise Refusal(
                503, "attestation_busy", "too many attestation documents are waiting to be made", retry_after=_RETRY_AFTER
            )
        self._pending += 1
        try:
            return await self._attester.attest(nonce=nonce, user_data=user_data, public_key=public_key)
        except NsmError as error:
            if error.reason in _PASSING:
                raise Refusal(
                    503, "attestation_unavailable", "the attestation device does not answer", retry_after=_RETRY_AFTER
                ) from error
            raise Refusal(500, "attestation_failed", "the attestation device refused the request") from error
        finally:
            self._pending -= 1


def decode_base64(text: str) -> bytes:
    """Bytes of canonical base64 in the standard or the URL alphabet, padded or not (RFC 4648). Raises ValueError."""
    unpadded = text.rstrip("=")
    if "=" in unpadded or len(text) - len(unpadded) not in (0, -len(unpadded) % 4):
        raise ValueError("wrong padding")
    standard = unpadded.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if base64.b64encode(data).decode().rstrip("=") != standard:
        raise ValueError("unused bits are not zero")
    return data


def prefers(accept: str | None, media_type: str, *, over: str) -> bool:
    """Whether an Accept header names `media_type` with a higher quality than `over` (RFC 9110, 12.5.1); wild cards prefer neither."""
    return _quality(accept, media_type) > _quality(accept, over)


def _quality(accept: str | None, media_type: str) -> float:
    for entry in (accept or "").lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        if name == media_type:
            return next(
                (_number(value) for key, _, value in (part.partition("=") for part in parameters) if key.strip() == "q"), 1.0
            )
    return 0.0


def _number(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
