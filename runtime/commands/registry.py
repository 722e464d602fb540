"""`enclave registry`: the provisioner's records, in the database beside its config."""

import argparse
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from runtime.commands.inputs import Unusable
from runtime.commands.output import fail, note, write
from runtime.commands.provisioner import DATABASE, read_config, state_folder
from runtime.commands.registration import record_of
from runtime.net.clock import unix_now
from runtime.provisioner import audit
from runtime.provisioner.audit import AuditEntry
from runtime.provisioner.records import NO_ROLE, EnclaveRecord
from runtime.provisioner.store import Store
from runtime.settings import SettingsError

DEFAULT_CONFIG = "provisioner.toml"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `registry`. Exit status: 0 done, 1 no such record, 2 usage."""
    parser = subparsers.add_parser(
        "registry",
        help="the provisioner's records",
        description="What the provisioner knows of each enclave. Secrets are never shown.",
    )
    parser.add_argument("-c", "--config", default=DEFAULT_CONFIG, metavar="provisioner.toml")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="register an enclave")
    add.add_argument("id", metavar="ID")
    add.add_argument("--reference", required=True, metavar="FILE", help="reference values of the image")
    add.add_argument("--parent", action="append", default=[], metavar="PEM", help="a parent's client certificate; repeatable")
    add.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a DNS name it may have a certificate for; repeatable"
    )
    add.add_argument("--role", action="append", default=[], metavar="ARN", help=f"an allowed IAM role; without one: {NO_ROLE}")
    add.add_argument("--epoch-floor", type=int, default=0, metavar="N", help="refuse releases of a lower epoch")
    add.add_argument(
        "--secret-env", action="append", default=[], metavar="NAME=FILE", help="a secret delivered as environment variable"
    )
    add.add_argument(
        "--secret-file", action="append", default=[], metavar="NAME=FILE", help="a secret delivered as sealed memory file"
    )
    add.add_argument(
        "--instance", action="append", metavar="ID", help="an EC2 instance that it may run on; repeatable; without one: any"
    )
    add.add_argument("--address", action="append", default=[], metavar="IP", help="a known address of the instance; repeatable")
    add.add_argument("--strict-source-ip", action="store_true", help="refuse evidence from any other address")
    add.add_argument(
        "--host-parameter", action="append", default=[], metavar="NAME=VALUE", help="what the parent tells at boot; repeatable"
    )
    add.add_argument("--epoch", type=int, metavar="N", help="the epoch of the reference values, for files that name none")
    add.add_argument(
        "--channel", choices=("exporter", "none"), default="exporter", help="bind evidence to its TLS connection (exporter)"
    )
    add.add_argument(
        "--renew-after", type=int, default=43200, metavar="SECONDS", help="when an enclave renews its lease (43200: 12 hours)"
    )
    add.add_argument("--lease-quota", type=int, default=16, metavar="N", help="leases that may be out at once (16)")
    add.add_argument(
        "--replace", action="store_true", help="put this in the place of the record there is, secrets and status included"
    )
    add.set_defaults(handler=_add)
    for name, handler, text in (
        ("list", _list, "all records"),
        ("show", _show, "one record"),
        ("revoke", _revoke, "never release again"),
    ):
        action = actions.add_parser(name, help=text)
        if name != "list":
            action.add_argument("id", metavar="ID")
        if name != "revoke":
            action.add_argument("--json", action="store_true")
        action.set_defaults(handler=handler)
    for action in actions.choices.values():  # -c may stand behind the action as well
        action.add_argument("-c", "--config", default=argparse.SUPPRESS, metavar="provisioner.toml", help=argparse.SUPPRESS)


def guarded(command: str, action: Callable[[], int]) -> int:
    """Runs `action`; a user's mistake is one line and exit status 2."""
    try:
        return action()
    except (SettingsError, Unusable) as error:
        return fail(command, str(error), 2)
    except OSError as error:
        return fail(command, error, 2)
    except sqlite3.Error as error:
        return fail(command, f"the database cannot be used: {error}", 2)


@contextmanager
def open_store(config: str) -> Iterator[Store]:
    """The database of a provisioner's config."""
    folder = state_folder(read_config(config), config)
    store = Store(folder / DATABASE)
    try:
        yield store
    finally:
        store.close()


def _add(arguments: argparse.Namespace) -> int:
    def action() -> int:
        record = record_of(arguments)
        with open_store(arguments.config) as store:
            if not store.put_record(record, is_new=not arguments.replace):
                return fail("registry", f"{record.enclave_id} is registered already; --replace puts this in its place", 1)
            _note(store, record.enclave_id, "replaced" if arguments.replace else "added")
        counts = f"{len(record.reference.measurements)} measurements, {len(record.secrets)} secrets, {len(record.parents)} parents"
        write(f"{record.enclave_id}: {counts}")
        if not record.parents:
            note("no --parent: nobody can fetch a ticket for it yet")
        return 0

    return guarded("registry", action)


def _list(arguments: argparse.Namespace) -> int:
    def action() -> int:
        with open_store(arguments.config) as store:
            records = store.records()
        if arguments.json:
            write(json.dumps([_as_json(record) for record in records]))
        for record in [] if arguments.json else records:
            names = ", ".join(measurement.name for measurement in record.reference.measurements)
            write(f"{record.enclave_id:<24} {record.status:<8} {names}")
        if not records:
            note("no records")
        return 0

    return guarded("registry", action)


def _show(arguments: argparse.Namespace) -> int:
    def action() -> int:
        with open_store(arguments.config) as store:
            record = store.record(arguments.id)
        if record is None:
            return _no_record(arguments.id)
        _print(record, as_json=arguments.json)
        return 0

    return guarded("registry", action)


def _revoke(arguments: argparse.Namespace) -> int:
    def action() -> int:
        with open_store(arguments.config) as store:
            if not store.revoke(arguments.id):
                return _no_record(arguments.id)
            _note(store, arguments.id, "revoked")
        write(f"{arguments.id}: revoked")
        return 0

    return guarded("registry", action)


def _no_record(name: str) -> int:
    return fail("registry", f"no record {name!r}; `enclave registry list` shows what there is", 1)


def _print(record: EnclaveRecord, *, as_json: bool) -> None:
    fields = _as_json(record)
    write(json.dumps(fields) if as_json else "\n".join(f"{name:<20} {_plain(value)}" for name, value in fields.items()))


def _as_json(record: EnclaveRecord) -> dict[str, object]:
    fields: dict[str, object] = json.loads(record.to_json())
    return fields | {"secrets": {name: secret.delivery for name, secret in record.secrets.items()}}


def _plain(value: object) -> str:
    return value.strip().replace("\n", f"\n{'':<21}") if isinstance(value, str) else json.dumps(value)


def _note(store: Store, enclave_id: str, change: str) -> None:
    entry = AuditEntry(event="registry", enclave_id=enclave_id, detail={"change": change})
    audit.record(store, entry, now=unix_now())


def when(unix: float) -> str:
    """A time for people, to the millisecond."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
