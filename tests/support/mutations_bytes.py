"""Documents whose envelope or payload is other than it must be, each with the one code that says so."""

from collections.abc import Iterator
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from tests.support import documents
from tests.support.documents import ABSENT, Raw, fields, item, key, payload, sign

Mutation = tuple[str, bytes, set[str]]

P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
PARTS = bytes.fromhex("5f420102420304ff")  # a byte string in chunks


def _envelope_items(base: bytes) -> list[bytes]:
    return [cbor2.dumps(part) for part in cbor2.loads(base)]


def envelope_mutations(base: bytes) -> Iterator[Mutation]:
    """From any accepted, untagged document: what is wrong shows before a signature is looked at."""
    protected, unprotected, content, signature = _envelope_items(base)
    body = protected + unprotected + content + signature

    def one(name: str, data: bytes, code: str) -> Mutation:
        return name, data, {code}

    yield one("nothing at all", b"", "truncated")
    yield one("a tag 17", b"\xd1" + base, "cbor_tag")
    yield one("a tag 98 (COSE_Sign)", b"\xd8\x62" + base, "cbor_tag")
    yield one("a tag 61 around tag 18", b"\xd8\x3d\xd2" + base, "cbor_tag")
    yield one("tag 18 twice", b"\xd2\xd2" + base, "cbor_tag")
    yield one("tag 18 in two bytes", b"\xd8\x12" + base, "cbor_tag")
    yield one("a self-described tag", b"\xd9\xd9\xf7" + base, "cbor_tag")
    yield one("only a tag 18", b"\xd2", "truncated")
    yield one("a zero byte behind", base + b"\x00", "trailing_bytes")
    yield one("a line feed behind", base + b"\n", "trailing_bytes")
    yield one("the document twice", base + base, "trailing_bytes")
    yield one("an array of indefinite length", b"\x9f" + body + b"\xff", "cose_shape")
    yield one("an array of three", b"\x83" + protected + unprotected + content, "cose_shape")
    yield one("an array of five", b"\x85" + body + b"\xa0", "cose_shape")
    yield one("an array of four claimed as five", b"\x85" + body, "truncated")
    yield one("an array of none", b"\x80", "cose_shape")
    yield one("a map in place of the array", b"\xa2" + body, "cose_shape")
    yield one("the payload alone", cbor2.loads(content), "cose_shape")
    yield one("the document in a byte string", cbor2.dumps(base), "cose_shape")
    yield one("the document in an array", b"\x81" + base, "cose_shape")
    yield one("text", cbor2.dumps("document"), "cose_shape")
    yield one("null", b"\xf6", "cose_shape")
    yield one("undefined", b"\xf7", "cbor_reserved")
    yield one("a break alone", b"\xff", "cbor_reserved")
    yield one("a reserved length", b"\x9c" + body, "cbor_reserved")
    yield one("a length of 2^64 - 1", b"\x84" + protected + unprotected + b"\x5b" + b"\xff" * 8, "truncated")
    yield one("an array of 2^64 - 1", b"\x9b" + b"\xff" * 8 + body, "truncated")
    yield one("more than 32768 bytes", base + bytes(32 * 1024), "too_large")
    yield one("arrays 5000 deep", b"\x81" * 5000, "too_deep")
    yield one("maps 5000 deep", b"\xa1\x00" * 5000, "too_deep")

    headers: dict[str, tuple[bytes, str]] = {
        "protected: a map and no byte string": (bytes.fromhex("a1013822"), "cose_protected"),
        "protected: empty": (b"\x40", "cose_protected"),
        "protected: null": (b"\xf6", "cose_protected"),
        "protected: text": (b"\x65" + b"a" * 5, "cose_protected"),
        "protected: in chunks": (PARTS, "cbor_indefinite"),
    }
    labelled: tuple[tuple[str, dict[Any, Any], str], ...] = (
        ("an empty map", {}, "cose_algorithm"),
        ("ES256", {1: -7}, "cose_algorithm"),
        ("ES512", {1: -36}, "cose_algorithm"),
        ("EdDSA", {1: -8}, "cose_algorithm"),
        ("PS384", {1: -38}, "cose_algorithm"),
        ("HMAC 256", {1: 5}, "cose_algorithm"),
        ("none of QEMU's NSM", {1: -1}, "cose_algorithm"),
        ("the algorithm as text", {1: "ES384"}, "cose_algorithm"),
        ("the algorithm null", {1: None}, "cose_algorithm"),
        ("the algorithm true", {1: True}, "cose_algorithm"),
        ("the algorithm as a float", {1: -35.0}, "cbor_float"),
        ("the algorithm as a bignum", {1: Raw(bytes.fromhex("c34122"))}, "cbor_tag"),
        ("the label as text", {"1": -35}, "cose_algorithm"),
        ("a key id too", {1: -35, 4: b"key"}, "cose_protected"),
        ("crit too", {1: -35, 2: [4]}, "cose_protected"),
        ("a content type too", {1: -35, 3: 0}, "cose_protected"),
        ("a text label too", {1: -35, "x": 1}, "cose_protected"),
    )
    for name, header, code in labelled:
        encoded = bytes((0xA0 | len(header),)) + b"".join(item(label) + item(value) for label, value in header.items())
        headers[f"protected: {name}"] = cbor2.dumps(encoded), code
    for name, hexes, code in (
        ("the algorithm twice", "a2013822013822", "cbor_duplicate_key"),
        ("the algorithm twice, once in a long form", "a201382218013822", "cbor_duplicate_key"),
        ("another algorithm behind", "a20138220126", "cbor_duplicate_key"),
        ("two maps", "a1013822a1013822", "trailing_bytes"),
        ("an array", "82013822", "cose_protected"),
        ("cut short", "a10138", "truncated"),
        ("a label true", "a1f53822", "cbor_key"),
        ("a label 1.0", "a1f93c003822", "cbor_float"),
    ):
        headers[f"protected: {name}"] = cbor2.dumps(bytes.fromhex(hexes)), code
    for name, (encoded, code) in headers.items():
        yield one(name, b"\x84" + encoded + unprotected + content + signature, code)
    yield one("the algorithm unprotected only", b"\x84\x41\xa0\xa1\x01\x38\x22" + content + signature, "cose_algorithm")

    for name, encoded in (
        ("the algorithm too", b"\xa1\x01\x38\x22"),
        ("another algorithm", b"\xa1\x01\x26"),
        ("a key id", b"\xa1\x04\x41\x00"),
        ("a certificate chain", b"\xa1\x18\x21\x41\x00"),
        ("null", b"\xf6"),
        ("an array", b"\x80"),
        ("a byte string", b"\x40"),
        ("zero", b"\x00"),
        ("false", b"\xf4"),
    ):
        yield one(f"unprotected: {name}", b"\x84" + protected + encoded + content + signature, "cose_unprotected")

    for name, encoded, code in (
        ("null (detached)", b"\xf6", "cose_payload"),
        ("empty", b"\x40", "cose_payload"),
        ("text", b"\x61x", "cose_payload"),
        ("a map and no byte string", cbor2.loads(content), "cose_payload"),
        ("in chunks", PARTS, "cbor_indefinite"),
        ("16385 bytes", cbor2.dumps(bytes(16385)), "cose_payload"),
        ("one byte short", content[:-1], "truncated"),
    ):
        tail = b"" if code == "truncated" else signature
        yield one(f"payload: {name}", b"\x84" + protected + unprotected + encoded + tail, code)

    raw = cbor2.loads(signature)
    for name, encoded, code in (
        ("null", b"\xf6", "cose_signature"),
        ("empty", b"\x40", "cose_signature"),
        ("95 bytes", cbor2.dumps(raw[:-1]), "cose_signature"),
        ("97 bytes", cbor2.dumps(raw + b"\x00"), "cose_signature"),
        ("97 bytes, zero in front", cbor2.dumps(b"\x00" + raw), "cose_signature"),
        ("64 bytes, as of P-256", cbor2.dumps(raw[:64]), "cose_signature"),
        ("132 bytes, as of P-521", cbor2.dumps(raw + bytes(36)), "cose_signature"),
        ("text", b"\x78\x60" + b"a" * 96, "cose_signature"),
        ("an array of integers", cbor2.dumps(list(raw)), "cose_signature"),
        ("in chunks", b"\x5f\x58\x60" + raw + b"\xff", "cbor_indefinite"),
        ("DER", cbor2.dumps(key(4).sign(b"", ec.ECDSA(SHA384()))), "cose_signature"),
    ):
        yield one(f"signature: {name}", b"\x84" + protected + unprotected + content + encoded, code)
    for name, r, s, code in (
        ("r = 0", bytes(48), raw[48:], "signature_range"),
        ("s = 0", raw[:48], bytes(48), "signature_range"),
        ("all zero", bytes(48), bytes(48), "signature_range"),
        ("r = n", P384_ORDER.to_bytes(48, "big"), raw[48:], "signature_range"),
        ("s = n", raw[:48], P384_ORDER.to_bytes(48, "big"), "signature_range"),
        ("r = n + 1", (P384_ORDER + 1).to_bytes(48, "big"), raw[48:], "signature_range"),
        ("s = 2^384 - 1", raw[:48], b"\xff" * 48, "signature_range"),
        ("r and s swapped", raw[48:], raw[:48], "signature_invalid"),
        ("r = 1", (1).to_bytes(48, "big"), raw[48:], "signature_invalid"),
        ("r = s = 1", (1).to_bytes(48, "big"), (1).to_bytes(48, "big"), "signature_invalid"),
        ("r little-endian", raw[47::-1], raw[48:], "signature_invalid"),
        ("a flipped bit in r", bytes((raw[0] ^ 1,)) + raw[1:48], raw[48:], "signature_invalid"),
        ("a flipped bit in s", raw[:48], raw[48:95] + bytes((raw[95] ^ 1,)), "signature_invalid"),
    ):
        encoded = cbor2.dumps(r + s)
        yield one(f"signature: {name}", b"\x84" + protected + unprotected + content + encoded, code)


def signed_wrongly() -> Iterator[Mutation]:
    """Well formed, and signed over something else or by somebody else."""
    content = payload(fields())
    other = payload(fields() | {"nonce": b"other"})
    wrong = {"signature_invalid"}
    yield "signed by another key", documents.envelope(content, signature=sign(content, private=key(90))), wrong
    yield "signed by the issuer of the leaf", documents.envelope(content, signature=sign(content, private=key(3))), wrong
    yield "signed by the root", documents.envelope(content, signature=sign(content, private=key(0))), wrong
    yield "the signature of another document", documents.envelope(content, signature=sign(other)), wrong
    yield "signed with an empty protected header", documents.envelope(content, signature=sign(content, protected=b"")), wrong
    yield "signed over SHA-256", documents.envelope(content, signature=sign(content, hash_=SHA256())), wrong
    yield "signed over SHA-512", documents.envelope(content, signature=sign(content, hash_=SHA512())), wrong
    halves = decode_dss_signature(key(4).sign(content, ec.ECDSA(SHA384())))
    plain_signature = b"".join(half.to_bytes(48, "big") for half in halves)
    yield "signed over the payload alone", documents.envelope(content, signature=plain_signature), wrong
    definite = payload(fields(), head=b"\xa9", tail=b"")
    yield "the payload encoded anew", documents.envelope(definite, signature=sign(content)), wrong
    long_header = bytes.fromhex("a118013822")
    yield (
        "the protected header encoded anew",
        b"\x84" + cbor2.dumps(long_header) + b"\xa0" + cbor2.dumps(content) + cbor2.dumps(sign(content)),
        wrong,
    )


WRONG_VALUES: dict[str, list[tuple[Any, str]]] = {
    "module_id": [("", "payload_module_id"), (b"i-0", "payload_module_id"), (5, "payload_module_id"), ([], "payload_module_id")],
    "digest": [(value, "payload_digest") for value in ("SHA256", "SHA512", "sha384", "SHA384 ", "", b"SHA384", 384, True)],
    "timestamp": [
        (0, "payload_timestamp"),
        (-1, "payload_timestamp"),
        (True, "payload_timestamp"),
        ("1782907200000", "payload_timestamp"),
        (b"\x01", "payload_timestamp"),
        (2**64 - 1, "payload_timestamp"),
        (1782907200000.0, "cbor_float"),
        (2**64, "cbor_tag"),
        (Raw(bytes.fromhex("c11a6a44f2c0")), "cbor_tag"),
    ],
    "pcrs": [
        ({}, "payload_pcrs"),
        (list(documents.pcrs().values()), "payload_pcrs"),
        (b"", "payload_pcrs"),
        ({index: bytes(48) for index in range(33)}, "payload_pcrs"),
        *(
            (documents.pcrs() | {index: bytes(48)}, code)
            for index, code in ((32, "pcr_index"), (-1, "pcr_index"), ("0", "pcr_index"), (b"\x00", "pcr_index"))
        ),
        (Raw(b"\xa1\xf4\x58\x30" + bytes(48)), "cbor_key"),
        (Raw(b"\xa1\xf6\x58\x30" + bytes(48)), "cbor_key"),
        (Raw(b"\xa1\xf9\x00\x00\x58\x30" + bytes(48)), "cbor_float"),
        (Raw(b"\xa1\x80\x58\x30" + bytes(48)), "cbor_key"),
        (Raw(b"\xa2" + 2 * (b"\x00\x58\x30" + bytes(48))), "cbor_duplicate_key"),
        (Raw(b"\xa2\x00\x58\x30" + bytes(48) + b"\x18\x00\x58\x30" + bytes(48)), "cbor_duplicate_key"),
        *((documents.pcrs() | {0: bytes(size)}, "pcr_size") for size in (0, 1, 31, 33, 47, 49, 63, 65, 96)),
        (documents.pcrs() | {0: "0" * 48}, "pcr_size"),
        (documents.pcrs() | {0: None}, "pcr_size"),
        (documents.pcrs() | {15: [0] * 48}, "pcr_size"),
    ],
    "certificate": [
        (b"", "certificate_size"),
        (bytes(1025), "certificate_size"),
        ("text", "certificate_size"),
        ([documents.certificates()[-1]], "certificate_size"),
        (1, "certificate_size"),
    ],
    "cabundle": [
        ([], "cabundle_size"),
        (documents.certificates()[0], "cabundle_size"),
        ({0: documents.certificates()[0]}, "cabundle_size"),
        ([documents.certificates()[0]] * 9, "cabundle_size"),
        ([documents.certificates()[0], *[bytes(300)] * 31], "cabundle_size"),
        ([*documents.certificates()[:-1], b""], "certificate_size"),
        ([bytes(1025)], "certificate_size"),
        (["text"], "certificate_size"),
        ([None], "certificate_size"),
        ([[documents.certificates()[0]]], "certificate_size"),
        (Raw(b"\x81" + PARTS), "cbor_indefinite"),
    ],
}
NO_OPTIONAL: tuple[Any, ...] = (bytes(1025), "text", 0, False, [], {}, [1, 2])
for optional in ("public_key", "user_data", "nonce"):
    WRONG_VALUES[optional] = [*((value, f"payload_{optional}") for value in NO_OPTIONAL), (Raw(PARTS), "cbor_indefinite")]


def payload_mutations() -> Iterator[Mutation]:
    """Signed as they stand by the key of a good chain: only the payload's rules refuse them."""

    def signed(name: str, content: bytes, code: str) -> Mutation:
        return name, documents.envelope(content), {code}

    good = fields()
    for field in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"):
        yield signed(f"no {field}", payload(good | {field: ABSENT}), "payload_field_missing")
        yield signed(f"{field} null", payload(good | {field: None}), "payload_field_missing")
        yield signed(f"{field} undefined", payload(good | {field: Raw(b"\xf7")}), "cbor_reserved")
    for field, value in good.items():
        yield signed(f"{field} twice", payload(good, extra=item(field) + item(value)), "cbor_duplicate_key")
        yield signed(f"{field} tagged", payload(good | {field: Raw(b"\xd8\x40" + item(value))}), "cbor_tag")
    for field, wrong in WRONG_VALUES.items():
        for number, (value, code) in enumerate(wrong):
            yield signed(f"{field}: wrong value {number}", payload(good | {field: value}), code)
    for extra in ("pcr", "Nonce", "nonce ", "", "version", "challenge"):
        yield signed(f"the unknown field {extra!r}", payload(good | {extra: 1}), "payload_unknown_field")
    yield signed(
        "nitrotpm_pcrs in place of pcrs", payload(good | {"pcrs": ABSENT, "nitrotpm_pcrs": good["pcrs"]}), "nitrotpm_document"
    )
    yield signed("nitrotpm_pcrs beside pcrs", payload(good | {"nitrotpm_pcrs": good["pcrs"]}), "nitrotpm_document")
    for name, key_item, code in (
        ("an integer", b"\x01", "payload_key"),
        ("a byte string", b"\x45nonce", "payload_key"),
        ("true", b"\xf5", "cbor_key"),
        ("null", b"\xf6", "cbor_key"),
        ("an array", b"\x80", "cbor_key"),
        ("a float", b"\xfb" + bytes(8), "cbor_float"),
        ("text that is not UTF-8", b"\x61\xff", "cbor_utf8"),
        ("text in chunks", b"\x7f\x61a\xff", "cbor_indefinite"),
    ):
        yield signed(f"a key that is {name}", payload(good, extra=key_item + b"\x00"), code)
    whole = payload(good)
    yield signed("a byte behind the payload's map", whole + b"\x00", "trailing_bytes")
    yield signed("two maps as payload", whole + whole, "trailing_bytes")
    yield signed("no break", whole[:-1], "truncated")
    yield signed("a break after a key", payload(good, extra=item("nonce2")), "cbor_reserved")
    yield signed("a definite map that claims ten", payload(good, head=b"\xaa", tail=b""), "truncated")
    yield signed("a definite map that claims eight", payload(good, head=b"\xa8", tail=b""), "trailing_bytes")
    yield signed("a definite map with a break", payload(good, head=b"\xa9"), "trailing_bytes")
    yield signed("an array of the fields", cbor2.dumps(list(good.values())), "payload_shape")
    yield signed("an array as payload", b"\x80", "payload_shape")
    yield signed("null as payload", b"\xf6", "payload_shape")
    yield signed("the payload in a byte string", cbor2.dumps(whole), "payload_shape")
    yield signed("an empty map as payload", b"\xa0", "payload_field_missing")
    yield signed("a tag before the payload", b"\xd8\x18" + whole, "cbor_tag")
    yield signed("a value 5000 deep", payload(good | {"nonce": Raw(b"\x81" * 5000 + b"\x00")}), "too_deep")
    yield signed("module_id that is not UTF-8", payload(good | {"module_id": Raw(b"\x62\xc3\x28")}), "cbor_utf8")
    yield signed("module_id with a surrogate", payload(good | {"module_id": Raw(b"\x63\xed\xa0\x80")}), "cbor_utf8")
    yield signed("a simple value", payload(good | {"nonce": Raw(b"\xf0")}), "cbor_reserved")
    yield signed("a one-byte simple value", payload(good | {"nonce": Raw(b"\xf8\xff")}), "cbor_reserved")
    yield signed("half a float", payload(good | {"nonce": Raw(b"\xf9\x7e\x00")}), "cbor_float")
