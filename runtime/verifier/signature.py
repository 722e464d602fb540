"""The signature of a document: ES384 (RFC 9053 section 2.1) over the bytes as received, by the key of its certificate."""

from collections.abc import Iterator

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from runtime.protocol.document import SIGNATURE_SIZE, UnverifiedDocument
from runtime.verifier.reasons import Mismatch, Reason

P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
"""n of P-384 (SEC 2 section 2.5.1)."""


def judge_signature(document: UnverifiedDocument, key: EllipticCurvePublicKey) -> Iterator[Mismatch]:
    """At most one mismatch. (r, n - s) verifies as well as (r, s): never take a document's bytes for its identity."""
    r, s = (int.from_bytes(half, "big") for half in _halves(document.signature))
    if not (0 < r < P384_ORDER and 0 < s < P384_ORDER):
        yield Mismatch(code=Reason.SIGNATURE_RANGE, detail="r and s of the signature must be in 1 to n - 1")
        return
    try:
        key.verify(encode_dss_signature(r, s), document.signed_bytes, ECDSA(SHA384()))
    except InvalidSignature:
        yield Mismatch(code=Reason.SIGNATURE_INVALID, detail="the document is not signed by the key of its certificate")


def _halves(signature: bytes) -> tuple[bytes, bytes]:
    return signature[: SIGNATURE_SIZE // 2], signature[SIGNATURE_SIZE // 2 :]
