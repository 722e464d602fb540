"""The attestation document of the Nitro Security Module: its bytes read into a value, and (for the simulated NSM) written.

What comes out of `parse_document` is well formed and nothing more: `UnverifiedDocument` is its own type, and only `runtime.verifier` turns
one into a result that may be believed. The rules are those of AWS's "Verifying the root of trust" (aws-nitro-enclaves-nsm-api,
docs/attestation_process.md) as genuine documents keep them, which is not always to the letter:

- the payload is a map of definite length up to May 2025 and of indefinite length since;
- the three optional fields are always there and null when unused, though the text forbids null;
- user_data is longer than the 512 bytes of the text and public_key shorter than its 1 byte in documents that AWS signed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.cose import ES384, sig_structure
from runtime.protocol.errors import Malformed

DOCUMENT_MAX = 32 * 1024
"""Bytes of a document. The NSM's answer has room for 12288."""

PAYLOAD_MAX = 16 * 1024
SIGNATURE_SIZE = 96
CERTIFICATE_MAX = 1024
CABUNDLE_MAX = 8
OPTIONAL_MAX = 1024
PCR_COUNT = 32
PCR_SIZES = (32, 48, 64)
DIGEST = "SHA384"

PROTECTED = cbor.encode({1: ES384})
"""The protected header of every genuine document: `{1: -35}`, five bytes with the head of its byte string."""

_TAG_SIGN1 = b"\xd2"
_INDEFINITE_ARRAY = b"\x9f"
_TIMESTAMP_MAX = 253_402_300_799_999  # the last millisecond of the year 9999, the end of every calendar we compute with
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MANDATORY = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
_OPTIONAL = ("public_key", "user_data", "nonce")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedDocument:
    """A well-formed document that nobody has verified: every field is the claim of whoever sent it.

    `protected` and `payload` are the bytes as received, which are what was signed. `cabundle` runs from the root to the issuer
    of `certificate`, all DER. `public_key`, `user_data` and `nonce` are None when null or absent; an empty string stays one.
    """

    protected: bytes
    payload: bytes
    signature: bytes
    module_id: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def timestamp(self) -> datetime:
        """When the NSM says it made the document."""
        return _EPOCH + timedelta(milliseconds=self.timestamp_ms)

    @property
    def is_debug(self) -> bool:
        """Whether the enclave runs in debug mode, which zeroes PCR0, PCR1 and PCR2 (and PCR8, but not PCR3 and PCR4)."""
        return not any(any(self.pcrs.get(index, b"")) for index in (0, 1, 2))

    @property
    def signed_bytes(self) -> bytes:
        """What `signature` (r || s, 48 big-endian bytes each) must be over."""
        return sig_structure(self.protected, b"", self.payload)


def parse_document(data: bytes) -> UnverifiedDocument:
    """The document in `data`, tagged (18) or not. Raises `Malformed`, whose reasons `runtime.verifier.reasons` lists."""
    if len(data) > DOCUMENT_MAX:
        raise Malformed(f"{len(data)} bytes, {DOCUMENT_MAX} allowed", "too_large")
    envelope = data.removeprefix(_TAG_SIGN1)
    match cbor.decode_wellformed(envelope, max_size=DOCUMENT_MAX):
        case [protected, unprotected, payload, signature] if not envelope.startswith(_INDEFINITE_ARRAY):
            pass
        case _:
            raise Malformed("a COSE_Sign1 is an array of four, of definite length", "cose_shape")
    protected = _protected(protected)
    if unprotected != {}:
        raise Malformed("the unprotected header must be an empty map", "cose_unprotected")
    payload = _octets(payload, "the payload", "cose_payload", least=1, most=PAYLOAD_MAX)
    signature = _octets(signature, "the signature", "cose_signature", least=SIGNATURE_SIZE, most=SIGNATURE_SIZE)
    fields = _payload_fields(payload)
    return UnverifiedDocument(
        protected=protected,
        payload=payload,
        signature=signature,
        module_id=_module_id(fields["module_id"]),
        timestamp_ms=_timestamp(fields["timestamp"]),
        pcrs=_pcrs(fields["pcrs"]),
        certificate=_octets(fields["certificate"], "certificate", "certificate_size", least=1, most=CERTIFICATE_MAX),
        cabundle=_cabundle(fields["cabundle"]),
        public_key=_optional(fields, "public_key"),
        user_data=_optional(fields, "user_data"),
        nonce=_optional(fields, "nonce"),
    )


def encode_payload(
    *,
    module_id: str,
    timestamp_ms: int,
    pcrs: Mapping[int, bytes],
    certificate: bytes,
    cabundle: tuple[bytes, ...],
    public_key: bytes | None,
    user_data: bytes | None,
    nonce: bytes | None,
) -> bytes:
    """A payload in the form of today's NSM: a map of indefinite length, its nine fields in the NSM's order. Checks nothing."""
    fields = {
        "module_id": module_id,
        "digest": DIGEST,
        "timestamp": timestamp_ms,
        "pcrs": dict(pcrs),
        "certificate": certificate,
        "cabundle": cabundle,
        "public_key": public_key,
        "user_data": user_data,
        "nonce": nonce,
    }
    entries = b"".join(cbor.encode(key) + cbor.encode(value) for key, value in fields.items())
    return b"\xbf" + entries + b"\xff"


def encode_document(payload: bytes, signature: bytes) -> bytes:
    """The untagged COSE_Sign1 of `payload` and its signature, which is over `sig_structure(PROTECTED, b"", payload)`."""
    return cbor.encode([PROTECTED, {}, payload, signature])


def _protected(value: Value) -> bytes:
    data = _octets(value, "the protected header", "cose_protected", least=1, most=DOCUMENT_MAX)
    header = _decode(data, "the protected header")
    if type(header) is not dict:
        raise Malformed("the protected header must be a map", "cose_protected")
    if header.pop(1, None) != ES384:
        raise Malformed(f"the protected header must name the algorithm {ES384} (ES384)", "cose_algorithm")
    if header:
        raise Malformed("the protected header holds more than the algorithm", "cose_protected")
    return data


def _payload_fields(payload: bytes) -> dict[str, Value]:
    """The payload's fields by name: all mandatory ones, none unknown."""
    decoded = _decode(payload, "the payload")
    if type(decoded) is not dict:
        raise Malformed("the payload must be a map", "payload_shape")
    fields: dict[str, Value] = {}
    for key, value in decoded.items():
        if type(key) is not str:
            raise Malformed("a key of the payload that is not text", "payload_key")
        fields[key] = value
    if "nitrotpm_pcrs" in fields:
        raise Malformed("a NitroTPM document: it attests an EC2 instance, not an enclave", "nitrotpm_document")
    for name in fields:
        if name not in _MANDATORY and name not in _OPTIONAL:
            raise Malformed(f"the payload has an unknown field {name!r:.40}", "payload_unknown_field")
    for name in _MANDATORY:
        if fields.get(name) is None:
            raise Malformed(f"the payload lacks {name}", "payload_field_missing")
    if fields["digest"] != DIGEST:
        raise Malformed(f"digest must be {DIGEST}", "payload_digest")
    return fields


def _module_id(value: Value) -> str:
    if type(value) is not str or not value:
        raise Malformed("module_id must be text and not empty", "payload_module_id")
    return value


def _timestamp(value: Value) -> int:
    if type(value) is not int or not 0 < value <= _TIMESTAMP_MAX:
        raise Malformed("timestamp must be a positive integer of milliseconds", "payload_timestamp")
    return value


def _pcrs(value: Value) -> Mapping[int, bytes]:
    if type(value) is not dict or not 1 <= len(value) <= PCR_COUNT:
        raise Malformed(f"pcrs must be a map of 1 to {PCR_COUNT} registers", "payload_pcrs")
    registers: dict[int, bytes] = {}
    for index, register in value.items():
        if type(index) is not int or not 0 <= index < PCR_COUNT:
            raise Malformed(f"{index!r:.40} is no index of a PCR", "pcr_index")
        if type(register) is not bytes or len(register) not in PCR_SIZES:
            raise Malformed(f"PCR{index} must be a byte string of 32, 48 or 64 bytes", "pcr_size")
        registers[index] = register
    return registers


def _cabundle(value: Value) -> tuple[bytes, ...]:
    if type(value) is not list or not 1 <= len(value) <= CABUNDLE_MAX:
        raise Malformed(f"cabundle must be an array of 1 to {CABUNDLE_MAX} certificates", "cabundle_size")
    return tuple(
        _octets(item, f"cabundle[{position}]", "certificate_size", least=1, most=CERTIFICATE_MAX)
        for position, item in enumerate(value)
    )


def _optional(fields: Mapping[str, Value], name: str) -> bytes | None:
    value = fields.get(name)
    return None if value is None else _octets(value, name, f"payload_{name}", least=0, most=OPTIONAL_MAX)


def _octets(value: Value, what: str, reason: str, *, least: int, most: int) -> bytes:
    if type(value) is not bytes or not least <= len(value) <= most:
        raise Malformed(f"{what} must be a byte string of {least} to {most} bytes", reason)
    return value


def _decode(data: bytes, what: str) -> Value:
    """The one item in `data`, at the cost of saying where an error was."""
    try:
        return cbor.decode_wellformed(data, max_size=DOCUMENT_MAX)
    except Malformed as error:
        raise Malformed(f"{what}: {error.detail}", error.reason) from None
