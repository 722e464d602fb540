"""`enclave logs-open`: reads the lines that an enclave sealed to the operator's key, from the file of events that a parent kept.

Runs where the key is. The file is a stranger's: it is read with bounds, and nothing of it can drive a terminal.
"""

import argparse
import binascii
import json
import os
import secrets
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from runtime.commands.inputs import Unusable, read_file
from runtime.commands.output import note, write
from runtime.commands.sealed_series import Opened, SealedSeries, Trouble
from runtime.parent.console import printable
from runtime.protocol.link import BOOT_ID_SIZE
from runtime.protocol.link_values import SEALED_MAX
from runtime.protocol.sealed_logs import SEED_SIZES, LogRecipient, log_key, read_log_key, write_log_key
from runtime.protocol.sealing import SealingKey, Suite

_RECORD_MAX = 2 * SEALED_MAX


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `logs-open`. Exit status: 0 the lines are those that were sent, 1 they are not, 2 usage."""
    parser = subparsers.add_parser(
        "logs-open",
        help="read the sealed lines in a parent's file of events",
        description="Read the sealed lines in a parent's file of events. Exit status: 0 whole, 1 something is wrong with them, 2 usage. "
        "That the last boot has no end yet is said, and no fault.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", metavar="FILE", help="the private key")
    what.add_argument("--new-key", metavar="FILE", help="make a private key, and print the public one for log.encrypt_to")
    parser.add_argument("--post-quantum", action="store_true", help="with --new-key: X-Wing in place of X25519")
    parser.add_argument("events", nargs="?", metavar="EVENTS", help="output.events of the parent")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Makes a key, or opens what a file holds; gives the exit status."""
    try:
        if arguments.new_key is not None:
            return _make_key(arguments.new_key, Suite.X_WING if arguments.post_quantum else Suite.X25519)
        if arguments.events is None:
            raise Unusable("name the parent's file of events")
        return _open(_read_key(arguments.key), arguments.events, as_json=arguments.json)
    except Unusable as error:
        note(f"enclave logs-open: {error}")
        return 2


def _make_key(name: str, suite: Suite) -> int:
    seed = secrets.token_bytes(SEED_SIZES[suite])
    try:
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(write_log_key(suite, seed) + "\n")
    except OSError as error:
        raise Unusable(f"{name}: {error.strerror}") from None
    write(f'encrypt_to = "{LogRecipient(suite, log_key(suite, seed).public)}"')
    return 0


def _read_key(name: str) -> SealingKey:
    try:
        return read_log_key(read_file(name).decode())
    except ValueError as error:
        raise Unusable(f"{name}: {error}") from None


def _open(key: SealingKey, name: str, *, as_json: bool) -> int:
    series = SealedSeries(key)
    faults = 0
    last_boot = b""

    def show(item: Opened | Trouble) -> None:
        if as_json:
            write(json.dumps(_as_json(item)))
        elif isinstance(item, Opened):
            write(_as_text(item))
        else:
            note(f"{item.boot_id.hex()[:8]} {item.fault.upper()} {item.detail}")

    try:
        with Path(name).open("rb") as file:
            for number, record in _records(file):
                if record is None:
                    note(f"{printable(name)}:{number}: a sealed record that cannot be read")
                    faults += 1
                    continue
                last_boot = record[0]
                for item in series.open(*record):
                    faults += isinstance(item, Trouble)
                    show(item)
    except OSError as error:
        raise Unusable(f"{name}: {error.strerror}") from None
    for trouble in series.finish():
        faults += trouble.boot_id != last_boot
        show(trouble)
    return 1 if faults else 0


def _records(file: BinaryIO) -> Iterator[tuple[int, tuple[bytes, int, bytes] | None]]:
    """(line, (boot_id, sequence, sealed bytes)) of each sealed record; None in place of what is broken, or too long to be one."""
    number = 0
    while line := file.readline(_RECORD_MAX):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) < _RECORD_MAX
        while not line.endswith(b"\n") and (more := file.readline(_RECORD_MAX)):
            line = more
        if not is_whole:
            yield number, None
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield number, None
            continue
        match record:
            case {"kind": "sealed", "boot_id": str(boot), "sequence": int(sequence), "sealed": str(sealed)}:
                yield number, _decoded(boot, sequence, sealed)
            case {"kind": "sealed"}:
                yield number, None
            case _:
                pass


def _decoded(boot: str, sequence: int, sealed: str) -> tuple[bytes, int, bytes] | None:
    try:
        boot_id, data = bytes.fromhex(boot), b64decode(sealed, validate=True)
    except (ValueError, binascii.Error):
        return None
    return (boot_id, sequence, data) if len(boot_id) == BOOT_ID_SIZE and 0 < sequence < 1 << 64 else None


def _as_text(item: Opened) -> str:
    line = item.line
    dropped = f" ({line.dropped} dropped before)" if line.dropped else ""
    more = " ..." if line.is_partial else ""
    shown = f"{item.boot_id.hex()[:8]} {line.process} {line.stream}{dropped} | {line.data.decode(errors='backslashreplace')}{more}"
    return printable(shown)


def _as_json(item: Opened | Trouble) -> dict[str, object]:
    if isinstance(item, Trouble):
        return {"boot_id": item.boot_id.hex(), "fault": item.fault, "detail": item.detail}
    line = item.line
    return {
        "boot_id": item.boot_id.hex(),
        "process": line.process,
        "stream": line.stream,
        "dropped": line.dropped,
        "partial": line.is_partial,
        "line": line.data.decode(errors="backslashreplace"),
    }
