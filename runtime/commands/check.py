"""`enclave check`: validates an enclave.toml and shows what it means, defaults filled in, with its digest.

Runs anywhere; reads one file, trusts nothing in it.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.commands.effective import to_table, to_toml
from runtime.commands.output import note, write
from runtime.enclave.config import load_enclave_config
from runtime.settings import SettingsError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: "Subparsers") -> None:
    """Adds `check FILE [--json]`."""
    parser = subparsers.add_parser("check", help="validate an enclave.toml and print the effective configuration and its digest")
    parser.add_argument("file", metavar="enclave.toml", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=check)


def check(arguments: argparse.Namespace) -> int:
    """0 when the file is right, 1 with every problem on standard error when it is not."""
    source = str(arguments.file)
    try:
        config = load_enclave_config(arguments.file.read_bytes(), source)
    except OSError as error:
        note(f"{source}: {error.strerror}")
        return 1
    except SettingsError as refused:
        note(str(refused))
        return 1
    table = to_table(config)
    if arguments.json:
        write(json.dumps({"digest": config.digest.hex(), "config": table}, indent=2))
    else:
        write(f"# {source}: every default filled in\n# config_digest (SHA-384 of the file) {config.digest.hex()}\n{to_toml(table)}")
    return 0
