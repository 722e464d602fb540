"""Reads a simulated document with other code than the project's: cbor2 for its form, `cryptography` for its signatures."""

from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384


def opened(document: bytes, root: x509.Certificate) -> dict[str, Any]:
    """The payload of `document`, whose chain and signature hold under `root`."""
    protected, unprotected, payload, signature = cbor2.loads(document)
    assert (protected, unprotected, len(signature)) == (b"\xa1\x01\x38\x22", {}, 96)
    fields: dict[str, Any] = cbor2.loads(payload)
    chain = [x509.load_der_x509_certificate(der) for der in (*fields["cabundle"], fields["certificate"])]
    assert chain[0] == root
    for issuer, certificate in zip([root, *chain], chain, strict=False):
        certificate.verify_directly_issued_by(issuer)
    key = chain[-1].public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    key.verify(encode_dss_signature(r, s), signed, ECDSA(SHA384()))
    return fields
