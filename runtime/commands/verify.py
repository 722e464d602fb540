"""`enclave verify`: appraises attestation documents from files.

Runs at any relying party. It trusts AWS's root or the roots it is given, the reference values it is given, and this machine's clock;
it prints nothing of a document that could drive a terminal.
"""

import argparse
import binascii
import json
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cryptography import x509

from runtime.commands.inputs import Unusable, read_file, read_reference, read_roots
from runtime.commands.output import note, write
from runtime.net.clock import utc_now
from runtime.protocol.document import OPTIONAL_MAX, UnverifiedDocument, parse_document
from runtime.protocol.errors import Malformed
from runtime.verifier.appraise import AppraisalFailed, AttestationResult, appraise
from runtime.verifier.certificate import parse_certificate
from runtime.verifier.reasons import Mismatch, Reason, rfc3339
from runtime.verifier.reference import ANY_MEASUREMENT, AnyMeasurement, ReferenceValues

_OWN_TIME = "document"
_RAW_STARTS = (0x84, 0xD2)
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2})+")
_STANDARD_BASE64 = bytes.maketrans(b"-_", b"+/")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)")
_NO_REFERENCE = "give --reference FILE, or --any-measurement to accept any code"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What came of one file. `document` is what could be read of it, believed only if `result` is there."""

    file: str
    judged_at: datetime
    clock: str
    document: UnverifiedDocument | None
    result: AttestationResult | None
    mismatches: tuple[Mismatch, ...]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `verify`. Exit status: 0 every document was accepted, 1 one was refused, 2 usage."""
    parser = subparsers.add_parser(
        "verify",
        help="appraise attestation documents",
        description="Appraise attestation documents (raw, base64 or hex). Exit status: 0 all accepted, 1 any refused, 2 usage.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a document")
    parser.add_argument("--nonce", type=_nonce, metavar="HEX", help="the nonce that the document must carry")
    expected = parser.add_mutually_exclusive_group()
    expected.add_argument("--reference", metavar="FILE", help="reference values: TOML, or what nitro-cli printed about the image")
    expected.add_argument("--any-measurement", action="store_true", help="accept any code")
    parser.add_argument("--root", metavar="PEM", help="trust these roots in place of AWS's")
    parser.add_argument(
        "--at",
        type=_moment,
        metavar="TIME",
        help='judge at this RFC 3339 time, or at each document\'s own ("document": for archives)',
    )
    parser.add_argument("--allow-debug", action="store_true", help="accept debug enclaves, which measure nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object a file, one a line")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Judges the files that `arguments` name and gives the exit status."""
    try:
        roots = read_roots(arguments.root)
        reference = _reference(arguments)
        documents = [(name, _document(read_file(name))) for name in arguments.files]
    except Unusable as error:
        for line in str(error).splitlines():
            note(f"enclave verify: {line}")
        return 2
    now = utc_now()
    refused = False
    for name, document in documents:
        verdict = _judge(name, document, arguments, roots=roots, reference=reference, now=now)
        refused |= verdict.result is None
        write(json.dumps(_as_json(verdict)) if arguments.json else _as_text(verdict))
    if refused and reference is None:
        note(f"enclave verify: without reference values no document is accepted: {_NO_REFERENCE}")
    return 1 if refused else 0


def _judge(
    name: str,
    document: bytes,
    arguments: argparse.Namespace,
    *,
    roots: Sequence[x509.Certificate],
    reference: ReferenceValues | AnyMeasurement | None,
    now: datetime,
) -> _Verdict:
    try:
        parsed = parse_document(document)
    except Malformed:
        parsed = None  # appraise says what is wrong with it
    match arguments.at:
        case datetime() as judged_at:
            clock = "as asked"
        case str() if parsed is not None:
            judged_at, clock = parsed.timestamp, "the document's own time, which says nothing about today"
        case _:
            judged_at, clock = now, "this machine's clock"
    result, mismatches = None, tuple[Mismatch, ...]()
    try:
        result = appraise(
            document,
            now=judged_at,
            roots=roots,
            reference=reference,
            nonce=arguments.nonce,
            allow_debug=arguments.allow_debug,
        )
    except AppraisalFailed as failed:
        mismatches = failed.mismatches
    return _Verdict(file=name, judged_at=judged_at, clock=clock, document=parsed, result=result, mismatches=mismatches)


# What the user gave


def _reference(arguments: argparse.Namespace) -> ReferenceValues | AnyMeasurement | None:
    if arguments.any_measurement:
        return ANY_MEASUREMENT
    return read_reference(arguments.reference) if arguments.reference else None


def _document(data: bytes) -> bytes:
    """The document in a file: as it is, or out of hex or base64. What is neither stays as it is, to be refused."""
    if data[:1] and data[0] in _RAW_STARTS:
        return data
    text = b"".join(data.split())
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.decode())
    digits = text.rstrip(b"=").translate(_STANDARD_BASE64)
    try:
        return b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        return data


def _nonce(text: str) -> bytes:
    if not _HEX.fullmatch(text.encode()) or len(text) > 2 * OPTIONAL_MAX:
        raise argparse.ArgumentTypeError(f"1 to {OPTIONAL_MAX} bytes in hex expected")
    return bytes.fromhex(text)


def _moment(text: str) -> datetime | str:
    if text == _OWN_TIME:
        return text
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError('an RFC 3339 time such as 2026-06-30T00:33:40Z, or "document", expected') from None


# What the user gets


def _as_json(verdict: _Verdict) -> dict[str, object]:
    document, result = verdict.document, verdict.result
    return {
        "file": verdict.file,
        "accepted": result is not None,
        "reasons": list(dict.fromkeys(mismatch.code for mismatch in verdict.mismatches)),
        "mismatches": [asdict(mismatch) for mismatch in verdict.mismatches],
        "judged_at": rfc3339(verdict.judged_at),
        "module_id": document and document.module_id,
        "timestamp": document and rfc3339(document.timestamp),
        "pcrs": document and {str(index): value.hex() for index, value in sorted(document.pcrs.items())},
        "debug": document and document.is_debug,
        "reference": result.reference.name if result and result.reference else None,
        "user_data": document and _hex(document.user_data),
        "nonce": document and _hex(document.nonce),
        "public_key": document and _hex(document.public_key),
        "certificate_expires": _expires(document),
    }


def _as_text(verdict: _Verdict) -> str:
    document, result = verdict.document, verdict.result
    lines = [f"{'accepted' if result else 'REFUSED'}  {_shown(verdict.file)}"]
    for mismatch in verdict.mismatches:
        lines.append(f"  {mismatch.code:<20} {mismatch.detail}")
        lines += [
            f"  {'':<20} {name} {value}"
            for name, value in (("expected", mismatch.expected), ("actual  ", mismatch.actual))
            if value
        ]
        if mismatch.code is Reason.REFERENCE_MISSING:
            lines.append(f"  {'':<20} {_NO_REFERENCE}")
    if document is None:
        return "\n".join(lines)
    rows = [
        ("judged at", f"{rfc3339(verdict.judged_at)} ({verdict.clock})"),
        ("module", _shown(document.module_id)),
        ("made", rfc3339(document.timestamp)),
        ("certificate", f"expires {_expires(document) or 'unknown'}"),
        ("measurement", result.reference.name if result and result.reference else "any" if result else "not established"),
        ("debug", "yes: nothing is measured" if document.is_debug else "no"),
        *((f"PCR{index}", value.hex()) for index, value in sorted(document.pcrs.items()) if any(value)),
        ("user data", _hex(document.user_data)),
        ("nonce", _hex(document.nonce)),
        ("public key", _hex(document.public_key)),
    ]
    lines += [f"  {label:<12} {'none' if value is None else value or 'empty'}" for label, value in rows]
    return "\n".join(lines)


def _expires(document: UnverifiedDocument | None) -> str | None:
    try:
        return None if document is None else rfc3339(parse_certificate(document.certificate).not_after)
    except Malformed:
        return None


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _shown(text: str) -> str:
    """`text` without anything that could drive a terminal or that no encoding has."""
    return text if text.isprintable() else ascii(text)
