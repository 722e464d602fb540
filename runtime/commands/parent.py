"""`enclave parent CONFIG`: the courier on the parent instance, until SIGTERM or SIGINT."""

import argparse
from dataclasses import replace
from pathlib import Path

import trio

from runtime.commands.output import fail
from runtime.parent.config import read_config
from runtime.parent.server import run_parent
from runtime.settings import SettingsError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command; its `handler` takes the parsed arguments and returns the exit status: 0, 1 for a failure, 2 for a bad config."""
    parser = subparsers.add_parser(
        "parent",
        help="serve one enclave on its parent instance",
        description="Relays clients to the enclave and the enclave to the network, and buys its tickets. SIGTERM or SIGINT end it.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="parent.toml; config/parent.toml is a commented example")
    parser.add_argument("--json", action="store_true", help="show events as JSON lines on standard error")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        config = read_config(arguments.config)
    except SettingsError as error:
        return fail("parent", str(error), 2)
    except OSError as error:
        return fail("parent", error, 2)
    if arguments.json:
        config = replace(config, output=replace(config.output, format="json"))
    try:
        trio.run(run_parent, config)
    except OSError as error:
        return fail("parent", error, 1)
    except ValueError as error:
        return fail("parent", str(error), 1)
    return 0
