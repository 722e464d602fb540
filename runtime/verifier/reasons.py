"""Why a document is refused: the stable codes, and what they are to PROV/1."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class Reason(StrEnum):
    """A code that callers, logs and tests may rely on."""

    # The bytes (runtime.protocol.document). One of these stands alone: what cannot be read cannot be judged further.
    MALFORMED = "malformed"  # not a document, in a way that has no code of its own
    TOO_LARGE = "too_large"  # more bytes or items than any document has
    TRUNCATED = "truncated"  # ends before its own lengths say so
    TRAILING_BYTES = "trailing_bytes"  # bytes after the end
    TOO_DEEP = "too_deep"  # nested deeper than any document is
    CBOR_TAG = "cbor_tag"  # a tag other than one 18 in front
    CBOR_FLOAT = "cbor_float"  # a floating-point number
    CBOR_UTF8 = "cbor_utf8"  # text that is not UTF-8
    CBOR_KEY = "cbor_key"  # a map key that is not an integer or a string
    CBOR_DUPLICATE_KEY = "cbor_duplicate_key"  # one key twice
    CBOR_INDEFINITE = "cbor_indefinite"  # a string in chunks
    CBOR_RESERVED = "cbor_reserved"  # an encoding that RFC 8949 does not define
    COSE_SHAPE = "cose_shape"  # not an array of four, of definite length
    COSE_PROTECTED = "cose_protected"  # the protected header is not one map of the algorithm alone
    COSE_ALGORITHM = "cose_algorithm"  # another algorithm than ES384
    COSE_UNPROTECTED = "cose_unprotected"  # unprotected headers
    COSE_PAYLOAD = "cose_payload"  # the payload is no byte string of 1 to 16384
    COSE_SIGNATURE = "cose_signature"  # the signature is no byte string of 96
    PAYLOAD_SHAPE = "payload_shape"  # the payload is not a map
    PAYLOAD_KEY = "payload_key"  # a key of the payload that is not text
    PAYLOAD_FIELD_MISSING = "payload_field_missing"  # a mandatory field is absent or null
    PAYLOAD_UNKNOWN_FIELD = "payload_unknown_field"  # a field that no enclave's document has
    PAYLOAD_MODULE_ID = "payload_module_id"  # module_id is not text or empty
    PAYLOAD_DIGEST = "payload_digest"  # digest is not SHA384
    PAYLOAD_TIMESTAMP = "payload_timestamp"  # timestamp is not a positive integer
    PAYLOAD_PCRS = "payload_pcrs"  # pcrs is not a map of 1 to 32 registers
    PAYLOAD_PUBLIC_KEY = "payload_public_key"  # public_key is no byte string of at most 1024
    PAYLOAD_USER_DATA = "payload_user_data"  # user_data is no byte string of at most 1024
    PAYLOAD_NONCE = "payload_nonce"  # nonce is no byte string of at most 1024
    PCR_INDEX = "pcr_index"  # a register's index is not an integer of 0 to 31
    PCR_SIZE = "pcr_size"  # a register is no byte string of 32, 48 or 64
    CERTIFICATE_SIZE = "certificate_size"  # a certificate is no byte string of 1 to 1024
    CABUNDLE_SIZE = "cabundle_size"  # cabundle is not an array of 1 to 8
    NITROTPM_DOCUMENT = "nitrotpm_document"  # the same root, but it attests an EC2 instance and no enclave

    # The chain (runtime.verifier.chain).
    ROOT_UNKNOWN = "root_unknown"  # the chain does not begin with a root that the caller trusts
    CERTIFICATE_SYNTAX = "certificate_syntax"  # not one strict DER X.509 v3 certificate
    CERTIFICATE_REPEATED = "certificate_repeated"  # one certificate stands in the chain twice
    CERTIFICATE_ALGORITHM = "certificate_algorithm"  # signed otherwise than by ecdsa-with-SHA384
    CERTIFICATE_KEY = "certificate_key"  # the key is no point of P-384
    CERTIFICATE_SIGNATURE = "certificate_signature"  # not signed by the key of the certificate before it
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"  # before notBefore
    CERTIFICATE_EXPIRED = "certificate_expired"  # after notAfter
    ISSUER_NAME = "issuer_name"  # the issuer is not the subject of the certificate before it
    KEY_IDENTIFIER = "key_identifier"  # the key identifiers of a certificate and its issuer differ
    NOT_A_CA = "not_a_ca"  # an issuer without a critical basicConstraints that makes it a CA
    PATH_LENGTH = "path_length"  # more issuers below one than its pathLenConstraint allows
    KEY_USAGE = "key_usage"  # keyUsage lacks what the certificate is used for, or allows a leaf to sign certificates
    LEAF_IS_CA = "leaf_is_ca"  # the certificate that signed the document is a CA or has a path length
    CRITICAL_EXTENSION = "critical_extension"  # a critical extension that nothing here understands

    # The signature (runtime.verifier.signature).
    SIGNATURE_RANGE = "signature_range"  # r or s is not in 1 to n - 1
    SIGNATURE_INVALID = "signature_invalid"  # the document's signature does not verify

    # What the caller expects (runtime.verifier.appraise).
    DOCUMENT_STALE = "document_stale"  # older than the caller allows
    DOCUMENT_FROM_FUTURE = "document_from_future"  # made later than now, by more than clocks may differ
    NONCE_MISMATCH = "nonce_mismatch"  # not the nonce that the caller chose
    USER_DATA_MISMATCH = "user_data_mismatch"  # not the user_data that the caller expects
    PUBLIC_KEY_MISMATCH = "public_key_mismatch"  # not the public_key that the caller expects
    DEBUG_ENCLAVE = "debug_enclave"  # PCR0, PCR1 and PCR2 are zero: a debug enclave measures nothing
    REFERENCE_MISSING = "reference_missing"  # the caller gave no reference values and did not ask for any measurement
    MEASUREMENT_UNKNOWN = "measurement_unknown"  # no reference measurement matches
    MODULE_NAME = "module_name"  # the leaf was issued to another module than module_id
    INSTANCE_REGISTER = "instance_register"  # PCR4 is not the measurement of the instance in module_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that is not as it must be. `detail` is for people; it quotes the document only in escaped form."""

    code: Reason
    detail: str
    expected: str = ""
    actual: str = ""

    def __str__(self) -> str:
        return f"{self.detail} [{self.code}]"


def rfc3339(moment: datetime) -> str:
    """`moment` (aware) as mismatches show it: in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_PROV1_ORDER = (
    "doc_syntax",
    "doc_signature",
    "doc_chain",
    "doc_stale",
    "doc_future",
    "nonce_mismatch",
    "transcript_mismatch",
    "debug_enclave",
    "measurement_unknown",
    "host_instance",
)
"""protocol/README.md section 1.6, in the order of the checks of section 1.4."""

_PROV1 = {
    Reason.SIGNATURE_RANGE: "doc_signature",
    Reason.SIGNATURE_INVALID: "doc_signature",
    Reason.ROOT_UNKNOWN: "doc_chain",
    Reason.CERTIFICATE_SYNTAX: "doc_chain",
    Reason.CERTIFICATE_REPEATED: "doc_chain",
    Reason.CERTIFICATE_ALGORITHM: "doc_chain",
    Reason.CERTIFICATE_KEY: "doc_chain",
    Reason.CERTIFICATE_SIGNATURE: "doc_chain",
    Reason.CERTIFICATE_NOT_YET_VALID: "doc_chain",
    Reason.CERTIFICATE_EXPIRED: "doc_chain",
    Reason.ISSUER_NAME: "doc_chain",
    Reason.KEY_IDENTIFIER: "doc_chain",
    Reason.NOT_A_CA: "doc_chain",
    Reason.PATH_LENGTH: "doc_chain",
    Reason.KEY_USAGE: "doc_chain",
    Reason.LEAF_IS_CA: "doc_chain",
    Reason.CRITICAL_EXTENSION: "doc_chain",
    Reason.MODULE_NAME: "doc_chain",
    Reason.DOCUMENT_STALE: "doc_stale",
    Reason.DOCUMENT_FROM_FUTURE: "doc_future",
    Reason.NONCE_MISMATCH: "nonce_mismatch",
    Reason.USER_DATA_MISMATCH: "transcript_mismatch",
    Reason.PUBLIC_KEY_MISMATCH: "transcript_mismatch",
    Reason.DEBUG_ENCLAVE: "debug_enclave",
    Reason.REFERENCE_MISSING: "measurement_unknown",
    Reason.MEASUREMENT_UNKNOWN: "measurement_unknown",
    Reason.INSTANCE_REGISTER: "host_instance",
}


def prov_reason(mismatches: Iterable[Mismatch]) -> str:
    """The internal reason of protocol/README.md section 1.6 for `mismatches`, at least one: that of the first check to fail (1.4).

    What has no line of its own is a fault of the bytes: "doc_syntax".
    """
    found = {_PROV1.get(mismatch.code, "doc_syntax") for mismatch in mismatches}
    return min(found, key=_PROV1_ORDER.index)
