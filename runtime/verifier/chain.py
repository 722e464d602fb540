"""The certificate chain of a document: from a root that the caller trusts, link by link in the order given, to the document's key.

No path is searched for. The cabundle is chosen by whoever sends the document, and a path builder can be made to search for ever; here
`cabundle[0]` is one of the caller's roots byte for byte or the chain is refused, each certificate is judged against the one before it, and
at most nine signatures are verified. The rules are RFC 5280's, sharpened to what AWS issues (P-384 and SHA-384 alone; linear; no names or
usages of web certificates). Revocation lists are not consulted: AWS says not to, and a leaf lives for three hours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.protocol.errors import Malformed
from runtime.verifier.certificate import (
    DIGITAL_SIGNATURE,
    ECDSA_WITH_SHA384,
    KEY_CERT_SIGN,
    Certificate,
    parse_certificate,
)
from runtime.verifier.reasons import Mismatch, Reason, rfc3339

_ECDSA_SHA384 = ECDSA(SHA384())


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedChain:
    """What was found. `leaf` and `key` are to be believed only when there are no mismatches; they are there to judge further."""

    leaf: Certificate | None
    key: EllipticCurvePublicKey | None
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """One certificate in its place: `below` counts the issuers between it and the leaf."""

    name: str
    is_leaf: bool
    below: int
    certificate: Certificate
    key: EllipticCurvePublicKey | None


def judge_chain(certificate: bytes, cabundle: Sequence[bytes], *, roots: Sequence[x509.Certificate], now: datetime) -> JudgedChain:
    """Judges `certificate` by `cabundle` (root first, its issuer last, at least one) at the moment `now`."""
    mismatches = list(_whole_chain(certificate, cabundle, roots))
    links: list[_Link | None] = []
    for position, encoded in enumerate((*cabundle, certificate)):
        is_leaf = position == len(cabundle)
        name = "certificate" if is_leaf else f"cabundle[{position}]"
        try:
            parsed = parse_certificate(encoded)
        except Malformed as error:
            mismatches.append(Mismatch(code=Reason.CERTIFICATE_SYNTAX, detail=f"{name}: {error.detail}"))
            links.append(None)
            continue
        link = _Link(name=name, is_leaf=is_leaf, below=len(cabundle) - 1 - position, certificate=parsed, key=parsed.p384_key())
        issuer = links[-1] if links else link  # the root is its own issuer
        mismatches += _alone(link, now)
        if issuer is not None:
            mismatches += _issued(link, issuer)
        links.append(link)
    leaf = links[-1]
    return JudgedChain(
        leaf=None if leaf is None else leaf.certificate,
        key=None if leaf is None else leaf.key,
        mismatches=tuple(mismatches),
    )


def _whole_chain(certificate: bytes, cabundle: Sequence[bytes], roots: Sequence[x509.Certificate]) -> Iterator[Mismatch]:
    if cabundle[0] not in [root.public_bytes(Encoding.DER) for root in roots]:
        yield Mismatch(code=Reason.ROOT_UNKNOWN, detail="cabundle[0] is not a trusted root, byte for byte")
    if len({*cabundle, certificate}) <= len(cabundle):
        yield Mismatch(code=Reason.CERTIFICATE_REPEATED, detail="a certificate stands in the chain twice")


def _alone(link: _Link, now: datetime) -> Iterator[Mismatch]:
    """What a certificate shows without its issuer: algorithms, key, time, and the right to its place."""
    certificate, name = link.certificate, link.name
    if not certificate.algorithm == certificate.signed_algorithm == ECDSA_WITH_SHA384:
        yield Mismatch(code=Reason.CERTIFICATE_ALGORITHM, detail=f"{name} is not signed by ecdsa-with-SHA384")
    if link.key is None:
        yield Mismatch(code=Reason.CERTIFICATE_KEY, detail=f"{name} has a key that is not of P-384")
    if now < certificate.not_before:
        yield _at(Reason.CERTIFICATE_NOT_YET_VALID, f"{name} is not valid yet", f"from {rfc3339(certificate.not_before)}", now)
    if now > certificate.not_after:
        yield _at(Reason.CERTIFICATE_EXPIRED, f"{name} has expired", f"until {rfc3339(certificate.not_after)}", now)
    for oid in certificate.unknown_critical:
        yield Mismatch(code=Reason.CRITICAL_EXTENSION, detail=f"{name} has the unknown critical extension {oid:.60}")
    yield from _leaf_rights(link) if link.is_leaf else _issuer_rights(link)


def _leaf_rights(link: _Link) -> Iterator[Mismatch]:
    constraints, usage = link.certificate.basic_constraints, link.certificate.key_usage
    if constraints is not None and (constraints.ca or constraints.path_length is not None):
        yield Mismatch(code=Reason.LEAF_IS_CA, detail=f"{link.name} must not be that of an authority")
    if usage is None or DIGITAL_SIGNATURE not in usage or KEY_CERT_SIGN in usage:
        yield Mismatch(code=Reason.KEY_USAGE, detail=f"{link.name} must be for digital signatures and not for certificates")


def _issuer_rights(link: _Link) -> Iterator[Mismatch]:
    constraints, usage = link.certificate.basic_constraints, link.certificate.key_usage
    if constraints is None or not constraints.critical or not constraints.ca:
        yield Mismatch(code=Reason.NOT_A_CA, detail=f"{link.name} lacks a critical basicConstraints that makes it an authority")
    elif constraints.path_length is not None and constraints.path_length < link.below:
        yield Mismatch(
            code=Reason.PATH_LENGTH,
            detail=f"{link.name} allows fewer issuers below it",
            expected=f"at most {constraints.path_length}",
            actual=str(link.below),
        )
    if usage is None or KEY_CERT_SIGN not in usage:
        yield Mismatch(code=Reason.KEY_USAGE, detail=f"{link.name} must be for signing certificates")


def _issued(link: _Link, issuer: _Link) -> Iterator[Mismatch]:
    """What ties a certificate to the one before it: name, key identifier, signature."""
    certificate, authority = link.certificate, issuer.certificate
    if certificate.issuer != authority.subject:
        yield Mismatch(code=Reason.ISSUER_NAME, detail=f"the issuer of {link.name} is not the subject of {issuer.name}")
    identifiers = authority.subject_key_id, certificate.authority_key_id
    if None not in identifiers and identifiers[0] != identifiers[1]:
        yield Mismatch(code=Reason.KEY_IDENTIFIER, detail=f"{link.name} names another key than that of {issuer.name}")
    if issuer.key is not None and certificate.algorithm == ECDSA_WITH_SHA384:
        try:
            issuer.key.verify(certificate.signature, certificate.signed, _ECDSA_SHA384)
        except InvalidSignature:
            yield Mismatch(code=Reason.CERTIFICATE_SIGNATURE, detail=f"{link.name} is not signed by the key of {issuer.name}")


def _at(code: Reason, detail: str, expected: str, now: datetime) -> Mismatch:
    return Mismatch(code=code, detail=detail, expected=expected, actual=rfc3339(now))
