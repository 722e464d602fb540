"""`enclave audit`: what the provisioner was asked, what became of it, and precisely why."""

import argparse
import json

from runtime.commands.output import note, write
from runtime.commands.registry import DEFAULT_CONFIG, guarded, open_store, when
from runtime.provisioner.audit import AuditRow, entries


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `audit`. Exit status: 0 shown, 2 usage."""
    parser = subparsers.add_parser(
        "audit", help="the provisioner's audit log", description="Show the provisioner's audit log, oldest first."
    )
    parser.add_argument("-c", "--config", default=DEFAULT_CONFIG, metavar="provisioner.toml")
    parser.add_argument("--id", metavar="ID", help="entries of one enclave alone")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="entries with a higher number than this")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="at most so many entries (1000)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    def action() -> int:
        with open_store(arguments.config) as store:
            rows = list(entries(store, after=arguments.after, enclave_id=arguments.id, limit=arguments.limit))
        for row in rows:
            write(json.dumps(_as_json(row)) if arguments.json else _as_text(row))
        if not rows:
            note("nothing recorded")
        return 0

    return guarded("audit", action)


def _as_json(row: AuditRow) -> dict[str, object]:
    entry = row.entry
    return {
        "sequence": row.sequence,
        "time": when(row.time),
        "event": entry.event,
        "enclave_id": entry.enclave_id,
        "reason": entry.reason,
        "alarm": entry.alarm,
        **entry.detail,
    }


def _as_text(row: AuditRow) -> str:
    entry = row.entry
    outcome = f"{entry.event} {entry.reason}" if entry.reason else entry.event
    alarm = "  ALARM" if entry.alarm else ""
    detail = " ".join(f"{name}={ascii(value)[1:-1]}" for name, value in entry.detail.items())
    return f"{row.sequence:>6}  {when(row.time)}  {entry.enclave_id or '-':<16} {outcome}{alarm}  {detail}"
