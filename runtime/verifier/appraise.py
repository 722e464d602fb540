"""The appraisal of an attestation document: the one function that turns a stranger's bytes into something to rely on.

Everything is judged and everything that is wrong is reported at once; only bytes that cannot be read stop it early. What the caller does
not say is refused, not passed over: without reference values there is no result, and "any measurement" must be asked for by name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest

from cryptography import x509

from runtime.protocol.digest import SIZE, digest
from runtime.protocol.document import UnverifiedDocument, parse_document
from runtime.protocol.errors import Malformed
from runtime.verifier.certificate import Certificate
from runtime.verifier.chain import judge_chain
from runtime.verifier.reasons import Mismatch, Reason, rfc3339
from runtime.verifier.reference import ANY_MEASUREMENT, AnyMeasurement, Measurement, ReferenceValues
from runtime.verifier.signature import judge_signature

MAX_AGE = 60.0
"""Seconds since a document was made, by default (protocol/README.md section 1.4)."""

MAX_SKEW = 5.0
"""Seconds by which a document may seem to come from the future."""

_INSTANCE_REGISTER = 4
_INSTANCE = re.compile(r"(i-[0-9a-f]+)-enc")
_SYNTAX = {reason.value: reason for reason in Reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """A document that was believed, and by what. Optional fields are as in `UnverifiedDocument`.

    `reference` is the measurement that matched, None when the caller asked for any. `certificate_expires` is the end of the document's
    own certificate, until when a result may be kept at most; `certificate_fingerprint` is the SHA-256 of its DER.
    """

    module_id: str
    timestamp: datetime
    pcrs: Mapping[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    reference: Measurement | None
    is_debug: bool
    certificate_fingerprint: bytes
    certificate_expires: datetime


class AppraisalFailed(Exception):
    """The document must not be believed. `mismatches` is everything that was found, at least one."""

    def __init__(self, mismatches: Iterable[Mismatch]) -> None:
        self.mismatches = tuple(mismatches)
        super().__init__("; ".join(map(str, self.mismatches)))

    @property
    def codes(self) -> tuple[Reason, ...]:
        """The codes, each once, in the order they were found."""
        return tuple(dict.fromkeys(mismatch.code for mismatch in self.mismatches))


def appraise(
    document: bytes,
    *,
    now: datetime,
    roots: Sequence[x509.Certificate],
    reference: ReferenceValues | AnyMeasurement | None,
    nonce: bytes | None = None,
    user_data: bytes | None = None,
    public_key: bytes | None = None,
    max_age: float | None = MAX_AGE,
    max_skew: float = MAX_SKEW,
    allow_debug: bool = False,
) -> AttestationResult:
    """Judges `document` at the moment `now` (aware) for a caller that trusts `roots` and `reference`. Raises `AppraisalFailed`.

    `reference` None is a caller without reference values, who is always refused. `nonce`, `user_data` and `public_key`, where given, must
    be the document's, byte for byte. `max_age` None is for archives: the certificates must still be valid at `now`.
    """
    if now.tzinfo is None:
        raise ValueError("`now` must say its time zone")
    try:
        parsed = parse_document(document)
    except Malformed as error:
        code = _SYNTAX.get(error.reason, Reason.MALFORMED)
        raise AppraisalFailed([Mismatch(code=code, detail=error.detail)]) from None

    chain = judge_chain(parsed.certificate, parsed.cabundle, roots=roots, now=now)
    mismatches = list(chain.mismatches)
    if chain.key is not None:  # without one, the chain's mismatches say why
        mismatches += judge_signature(parsed, chain.key)
    mismatches += _judge_time(parsed.timestamp, now, max_age, max_skew)
    mismatches += _judge_equal("nonce", Reason.NONCE_MISMATCH, nonce, parsed.nonce)
    mismatches += _judge_equal("user_data", Reason.USER_DATA_MISMATCH, user_data, parsed.user_data)
    mismatches += _judge_equal("public_key", Reason.PUBLIC_KEY_MISMATCH, public_key, parsed.public_key)
    if parsed.is_debug and not allow_debug:
        mismatches.append(Mismatch(code=Reason.DEBUG_ENCLAVE, detail="PCR0, PCR1 and PCR2 are zero: the enclave is in debug mode"))
    mismatches += _judge_measurement(parsed.pcrs, reference)
    mismatches += _judge_module(parsed, chain.leaf)
    if mismatches or chain.leaf is None or chain.key is None:
        raise AppraisalFailed(mismatches)

    return AttestationResult(
        module_id=parsed.module_id,
        timestamp=parsed.timestamp,
        pcrs=parsed.pcrs,
        public_key=parsed.public_key,
        user_data=parsed.user_data,
        nonce=parsed.nonce,
        reference=reference.match(parsed.pcrs) if isinstance(reference, ReferenceValues) else None,
        is_debug=parsed.is_debug,
        certificate_fingerprint=sha256(parsed.certificate).digest(),
        certificate_expires=chain.leaf.not_after,
    )


def _judge_time(made: datetime, now: datetime, max_age: float | None, max_skew: float) -> Iterator[Mismatch]:
    if max_age is not None and now - made > timedelta(seconds=max_age):
        yield Mismatch(
            code=Reason.DOCUMENT_STALE,
            detail=f"the document is older than {max_age:g} s",
            expected=f"from {rfc3339(now - timedelta(seconds=max_age))}",
            actual=rfc3339(made),
        )
    if made - now > timedelta(seconds=max_skew):
        yield Mismatch(
            code=Reason.DOCUMENT_FROM_FUTURE,
            detail=f"the document is from more than {max_skew:g} s in the future",
            expected=f"until {rfc3339(now + timedelta(seconds=max_skew))}",
            actual=rfc3339(made),
        )


def _judge_equal(name: str, code: Reason, expected: bytes | None, actual: bytes | None) -> Iterator[Mismatch]:
    if expected is None:
        return
    if actual is None:
        yield Mismatch(code=code, detail=f"the document has no {name}", expected=expected.hex())
    elif not compare_digest(expected, actual):
        yield Mismatch(code=code, detail=f"another {name} than expected", expected=expected.hex(), actual=actual.hex())


def _judge_measurement(pcrs: Mapping[int, bytes], reference: ReferenceValues | AnyMeasurement | None) -> Iterator[Mismatch]:
    if isinstance(reference, ReferenceValues):
        if reference.match(pcrs) is None:
            nearest = reference.nearest(pcrs)
            differing = nearest.differing(pcrs)
            yield Mismatch(
                code=Reason.MEASUREMENT_UNKNOWN,
                detail=f"no reference measurement matches; the nearest, {nearest.name!r}, differs in "
                + ", ".join(f"PCR{index}" for index in differing),
                expected=_registers({index: nearest.pcrs[index] for index in differing}),
                actual=_registers({index: pcrs[index] for index in differing if index in pcrs}),
            )
    elif reference is not ANY_MEASUREMENT:
        yield Mismatch(code=Reason.REFERENCE_MISSING, detail="no reference values to compare the measurements with")


def _judge_module(document: UnverifiedDocument, leaf: Certificate | None) -> Iterator[Mismatch]:
    """What AWS's texts do not ask for and every genuine document keeps: the NSM's certificate and PCR4 are of the module it names."""
    if leaf is not None and not (leaf.common_name or "").startswith(document.module_id + "."):
        yield Mismatch(
            code=Reason.MODULE_NAME,
            detail="the certificate is not that of the module",
            expected=ascii(document.module_id + ".…")[1:-1],
            actual=ascii(leaf.common_name or "")[1:-1],
        )
    instance = _INSTANCE.match(document.module_id)
    if instance is None:
        return
    expected, actual = digest(bytes(SIZE) + instance[1].encode()), document.pcrs.get(_INSTANCE_REGISTER)
    if actual != expected:
        yield Mismatch(
            code=Reason.INSTANCE_REGISTER,
            detail=f"PCR{_INSTANCE_REGISTER} is not the measurement of {instance[1]:.40}",
            expected=expected.hex(),
            actual=(actual or b"").hex(),
        )


def _registers(pcrs: Mapping[int, bytes]) -> str:
    return ", ".join(f"PCR{index}={value.hex()}" for index, value in pcrs.items())
