"""`enclave check`: validates a configuration file and shows what it means, defaults filled in; for an enclave.toml with its digest.

Runs anywhere; reads one file, trusts nothing in it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from runtime.client.config import ClientConfig
from runtime.commands.output import note, write
from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.image.config import ImageConfig
from runtime.parent.config import ParentConfig
from runtime.provisioner.config import ProvisionerConfig
from runtime.settings import SettingsError, decode, load
from runtime.toml_text import to_table, to_toml

_OTHERS: dict[str, type[Any]] = {
    "parent": ParentConfig,
    "provisioner": ProvisionerConfig,
    "client": ClientConfig,
    "image": ImageConfig,
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `check FILE [--role ROLE] [--json]`."""
    parser = subparsers.add_parser("check", help="validate an enclave.toml and print the effective configuration and its digest")
    parser.add_argument("file", metavar="enclave.toml", type=Path)
    parser.add_argument("--role", choices=("enclave", *_OTHERS), default="enclave", help="whose file it is (enclave)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=check)


def check(arguments: argparse.Namespace) -> int:
    """0 when the file is right, 1 with every problem on standard error when it is not."""
    source = str(arguments.file)
    try:
        raw = arguments.file.read_bytes()
        config: Any = (
            load_enclave_config(raw, source)
            if arguments.role == "enclave"
            else load(_OTHERS[arguments.role], decode(raw, source), source)
        )
    except OSError as error:
        note(f"{source}: {error.strerror}")
        return 1
    except SettingsError as refused:
        note(str(refused))
        return 1
    table = to_table(config)
    digest = config.digest.hex() if isinstance(config, EnclaveConfig) else None
    if arguments.json:
        write(json.dumps(({"digest": digest} if digest else {}) | {"config": table}, indent=2))
    else:
        measured = f"# config_digest (SHA-384 of the file) {digest}\n" if digest else ""
        write(f"# {source}: every default filled in\n{measured}{to_toml(table)}")
    return 0
