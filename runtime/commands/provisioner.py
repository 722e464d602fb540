"""`enclave provisioner CONFIG`: releases secrets to measured enclaves, until SIGTERM or SIGINT."""

import argparse
import json
import signal
import sqlite3
from functools import partial
from pathlib import Path

import trio
from cryptography import x509

from runtime.commands.inputs import Unusable, read_roots
from runtime.commands.output import fail, note, write
from runtime.net.clock import utc_now
from runtime.provisioner.config import ProvisionerConfig
from runtime.provisioner.keys import ProvisionerKeys, create_keys, load_keys, renew_statement
from runtime.provisioner.server import run_provisioner
from runtime.provisioner.store import Store
from runtime.settings import SettingsError, decode, load

DATABASE = "store.db"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `provisioner`. Exit status: 0 ended by a signal, 1 it could not run, 2 a bad config."""
    parser = subparsers.add_parser(
        "provisioner",
        help="release secrets to measured enclaves",
        description="Serve PROV/1 at the secret owner. SIGTERM or SIGINT end it.",
    )
    parser.add_argument("config", metavar="CONFIG", help="provisioner.toml; config/provisioner.toml is a commented example")
    parser.add_argument("--init", action="store_true", help="make the keys in the config's folder, which must have none, then end")
    parser.add_argument(
        "--renew-statement", action="store_true", help="sign the release key for another 90 days, with root.key; then end"
    )
    parser.add_argument("--json", action="store_true", help="say where it listens as JSON")
    parser.set_defaults(handler=_run)


def read_config(path: str) -> ProvisionerConfig:
    """The config of a file. Raises `SettingsError` or OSError."""
    return load(ProvisionerConfig, decode(Path(path).read_bytes(), path), path)


def state_folder(config: ProvisionerConfig, path: str) -> Path:
    """Where the keys and the database are."""
    return Path(path).resolve().parent / config.directory


def _run(arguments: argparse.Namespace) -> int:
    try:
        config = read_config(arguments.config)
    except SettingsError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(error, 2)
    try:
        folder = state_folder(config, arguments.config)
        if arguments.init:
            return _init(config, folder)
        if arguments.renew_statement:
            renew_statement(folder, now=utc_now())
            write(f"{folder / 'release.statement'}: valid for 90 days; start the provisioner again to use it")
            return 0
        keys = load_keys(folder)
        roots = [root for name in config.roots for root in read_roots(name)]
    except (SettingsError, Unusable) as error:
        return _fail(str(error), 2)
    except (OSError, ValueError) as error:
        return _fail(f"{error}; `enclave provisioner {arguments.config} --init` makes what is missing", 2)
    try:
        store = Store(folder / DATABASE)
    except sqlite3.Error as error:
        return _fail(f"{folder / DATABASE}: {error}", 1)
    status = 0
    try:
        trio.run(partial(_serve, config, keys, store, roots, as_json=arguments.json))
    except* OSError as group:  # out of the nursery that serves, so always in a group
        status = _fail(f"{config.listen}: {_words(group)}", 1)
    finally:
        store.close()
    return status


def _init(config: ProvisionerConfig, folder: Path) -> int:
    try:
        create_keys(folder, server_names=config.server_names, now=utc_now())
    except FileExistsError as error:
        return _fail(f"{error.filename} is there already; nothing was changed", 1)
    write(f"keys made in {folder}; pin this in enclave.toml: {(folder / 'root.pub').read_text().strip()}")
    note("root.key signs release keys and is needed for nothing else: move it off this machine")
    return 0


async def _serve(
    config: ProvisionerConfig, keys: ProvisionerKeys, store: Store, roots: list[x509.Certificate], *, as_json: bool
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            at = await nursery.start(partial(run_provisioner, config, keys, store, roots, log=note))
            write(json.dumps({"event": "listening", "at": str(at)}) if as_json else f"listening on {at}")
            await anext(signals)
            nursery.cancel_scope.cancel()


def _words(error: BaseException) -> str:
    """What the system says of the first error in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _fail(problem: str | OSError, status: int) -> int:
    return fail("provisioner", problem, status)
