"""The messages of the Nitro Security Module, /dev/nsm, as AWS's own client writes and reads them (serde_cbor's external tagging).

A command without fields is a text string, one with fields a map of one: name to map. The enclave encodes requests and decodes
responses; the simulated device does the reverse. Requests have the very bytes of AWS's client (fields in the order of its types, not
sorted). Whatever is decoded may have any key order and indefinite lengths, and fields that we do not know are passed over, as AWS's
client does: a newer module may say more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from runtime.protocol import cbor
from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed, Refused
from runtime.protocol.fields import array, octets, text, uint

REQUEST_MAX = 4096
"""Bytes of a request that the driver takes; a longer one is EMSGSIZE."""
RESPONSE_MAX = 12288
"""Bytes of a response. The driver silently cuts a response to the buffer it was offered, so always offer this much."""

USER_DATA_MAX = 1024
NONCE_MAX = 1024
PUBLIC_KEY_MAX = 1024
"""Bytes of a document's optional fields (CDDL of AWS's attestation_process.md). The device takes more; no verifier does."""

PCR_COUNT = 32
FIRST_OWN_PCR = 16
"""PCRs below this one are locked from boot; those from here on belong to the enclave."""
DIGEST_SIZES = {"SHA256": 32, "SHA384": 48, "SHA512": 64}

_U16 = 0xFFFF


class NsmErrorCode(Enum):
    """What the device answers instead of a result; the value is its name on the wire."""

    INVALID_ARGUMENT = "InvalidArgument"
    INVALID_INDEX = "InvalidIndex"
    INVALID_RESPONSE = "InvalidResponse"
    READ_ONLY_INDEX = "ReadOnlyIndex"
    INVALID_OPERATION = "InvalidOperation"
    BUFFER_TOO_SMALL = "BufferTooSmall"
    INPUT_TOO_LARGE = "InputTooLarge"
    INTERNAL_ERROR = "InternalError"

    @property
    def reason(self) -> str:
        """The stable reason code, "nsm_invalid_index" for example."""
        return f"nsm_{self.name.lower()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRandom:
    """Asks for random bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeNsm:
    """Asks for the module's description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribePcr:
    """Asks for one PCR."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendPcr:
    """Sets a PCR to SHA-384(its value || data); `data` is not hashed first."""

    index: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPcr:
    """Locks one PCR; an error when it is locked already."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPcrs:
    """Locks the PCRs [0, count), locked ones among them or not."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """Asks for an attestation document. None is null in the document, an empty byte string stays one."""

    user_data: bytes | None = None
    nonce: bytes | None = None
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """1 or more random bytes (256 from the real device)."""

    random: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NsmDescription:
    """The module; `module_id` is `i-<17 hex>-enc<16 hex>`, `digest` a key of DIGEST_SIZES."""

    version: tuple[int, int, int]
    module_id: str
    max_pcrs: int
    locked_pcrs: frozenset[int]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrDescription:
    """One PCR: whether it is locked, and its value (48 bytes with SHA384)."""

    locked: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrExtended:
    """The new value of the PCR."""

    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrLocked:
    """The PCR is locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrsLocked:
    """The PCRs are locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """An attestation document, exactly as the device made it."""

    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The device refused the request."""

    code: NsmErrorCode


Request: TypeAlias = GetRandom | DescribeNsm | DescribePcr | ExtendPcr | LockPcr | LockPcrs | Attest
Response: TypeAlias = Random | NsmDescription | PcrDescription | PcrExtended | PcrLocked | PcrsLocked | Attested | Failure


def encode_request(request: Request) -> bytes:
    """The bytes that AWS's client writes for `request`. Raises `Refused` ("nsm_input_too_large") for what is over a limit."""
    match request:
        case GetRandom():
            return cbor.encode("GetRandom")
        case DescribeNsm():
            return cbor.encode("DescribeNSM")
        case DescribePcr(index=index):
            return _tagged("DescribePCR", {"index": index})
        case ExtendPcr(index=index, data=data):
            return _bounded(_tagged("ExtendPCR", {"index": index, "data": data}), "an ExtendPCR request", REQUEST_MAX)
        case LockPcr(index=index):
            return _tagged("LockPCR", {"index": index})
        case LockPcrs(count=count):
            return _tagged("LockPCRs", {"range": count})
        case Attest(user_data=user_data, nonce=nonce, public_key=public_key):
            _bounded(user_data or b"", "user_data", USER_DATA_MAX)
            _bounded(nonce or b"", "nonce", NONCE_MAX)
            _bounded(public_key or b"", "public_key", PUBLIC_KEY_MAX)
            return _tagged("Attestation", {"user_data": user_data, "nonce": nonce, "public_key": public_key})
        case _:
            assert_never(request)


def decode_request(data: bytes) -> Request:
    """The request that `data` holds, for a device. Its indices and sizes are the device's to judge. Raises `Malformed`."""
    name, body = _untagged(cbor.decode_wellformed(data, max_size=REQUEST_MAX))
    match name, body:
        case "GetRandom", None:
            return GetRandom()
        case "DescribeNSM", None:
            return DescribeNsm()
        case "DescribePCR", dict():
            return DescribePcr(index=_u16(body, "index"))
        case "ExtendPCR", dict():
            return ExtendPcr(index=_u16(body, "index"), data=octets(body.get("data"), "data"))
        case "LockPCR", dict():
            return LockPcr(index=_u16(body, "index"))
        case "LockPCRs", dict():
            return LockPcrs(count=_u16(body, "range"))
        case "Attestation", dict():
            asked = {field: _optional(body, field) for field in ("user_data", "nonce", "public_key")}
            return Attest(**asked)
        case _:
            raise Malformed(f"no such request: {name:.40}")


def encode_response(response: Response) -> bytes:
    """The bytes of a response, for a device."""
    match response:
        case Random(random=random):
            return _tagged("GetRandom", {"random": random})
        case NsmDescription(version=(major, minor, patch)):
            fields: dict[str, object] = {"version_major": major, "version_minor": minor, "version_patch": patch}
            fields |= {"module_id": response.module_id, "max_pcrs": response.max_pcrs}
            return _tagged("DescribeNSM", fields | {"locked_pcrs": sorted(response.locked_pcrs), "digest": response.digest})
        case PcrDescription(locked=locked, value=value):
            return _tagged("DescribePCR", {"lock": locked, "data": value})
        case PcrExtended(value=value):
            return _tagged("ExtendPCR", {"data": value})
        case PcrLocked():
            return cbor.encode("LockPCR")
        case PcrsLocked():
            return cbor.encode("LockPCRs")
        case Attested(document=document):
            return _tagged("Attestation", {"document": document})
        case Failure(code=code):
            return cbor.encode({"Error": code.value})
        case _:
            assert_never(response)


def decode_response(data: bytes) -> Response:
    """The response that `data` holds, exactly `data` and not a buffer with something behind it. Raises `Malformed`."""
    name, body = _untagged(cbor.decode_wellformed(data, max_size=RESPONSE_MAX))
    match name, body:
        case "GetRandom", dict():
            return Random(random=octets(body.get("random"), "random", least=1))
        case "DescribeNSM", dict():
            return _description(body)
        case "DescribePCR", dict():
            locked = body.get("lock")
            if not isinstance(locked, bool):
                raise Malformed("lock must be true or false")
            return PcrDescription(locked=locked, value=_pcr_value(body))
        case "ExtendPCR", dict():
            return PcrExtended(value=_pcr_value(body))
        case "LockPCR", None:
            return PcrLocked()
        case "LockPCRs", None:
            return PcrsLocked()
        case "Attestation", dict():
            return Attested(document=octets(body.get("document"), "document", least=1))
        case "Error", str():
            return Failure(code=_error_code(body))
        case _:
            raise Malformed(f"no such response: {name:.40}")


def _tagged(name: str, fields: Mapping[str, object]) -> bytes:
    """`{name: fields}` with the fields in the order given, which `cbor.encode` would sort."""
    body = b"".join(cbor.encode(key) + cbor.encode(value) for key, value in fields.items())
    return cbor.head(5, 1) + cbor.encode(name) + cbor.head(5, len(fields)) + body


def _untagged(item: Value) -> tuple[str, Value]:
    """(name, its fields or None) of an externally tagged item. `{name: null}` reads as `name`, which serde takes too."""
    match item:
        case str():
            return item, None
        case dict() if len(item) == 1:
            [(name, body)] = item.items()
            return text(name, "the name"), body
        case _:
            raise Malformed("neither a name nor a map of one name")


def _bounded(data: bytes, what: str, most: int) -> bytes:
    if len(data) > most:
        raise Refused(NsmErrorCode.INPUT_TOO_LARGE.reason, f"{what} of {len(data)} bytes, {most} allowed")
    return data


def _u16(body: Mapping[cbor.Key, Value], field: str) -> int:
    return uint(body.get(field), field, most=_U16)


def _optional(body: Mapping[cbor.Key, Value], field: str) -> bytes | None:
    value = body.get(field)
    return None if value is None else octets(value, field)


def _pcr_value(body: Mapping[cbor.Key, Value]) -> bytes:
    value = octets(body.get("data"), "data")
    if len(value) not in DIGEST_SIZES.values():
        raise Malformed(f"a PCR of {len(value)} bytes")
    return value


def _description(body: Mapping[cbor.Key, Value]) -> NsmDescription:
    digest = text(body.get("digest"), "digest")
    if digest not in DIGEST_SIZES:
        raise Malformed(f"the digest {digest:.20}")
    return NsmDescription(
        version=(_u16(body, "version_major"), _u16(body, "version_minor"), _u16(body, "version_patch")),
        module_id=text(body.get("module_id"), "module_id", least=1),
        max_pcrs=_u16(body, "max_pcrs"),
        locked_pcrs=frozenset(array(body.get("locked_pcrs"), "locked_pcrs", _index, most=_U16)),
        digest=digest,
    )


def _index(value: Value, what: str) -> int:
    return uint(value, what, most=_U16)


def _error_code(name: str) -> NsmErrorCode:
    try:
        return NsmErrorCode(name)
    except ValueError:
        raise Malformed(f"no such error: {name:.40}") from None
