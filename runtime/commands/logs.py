"""`enclave logs`: what a running parent has seen lately, the customer's output among it; with --follow also what it sees from now on."""

import argparse
import json
from functools import partial

from runtime.commands.output import note, write
from runtime.commands.parent_socket import ParentSocket, add_options, guarded
from runtime.parent.console import legible
from runtime.parent.status import WAIT_MAX


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `logs`. Exit status: 0 shown, 1 the parent does not answer (any more)."""
    parser = subparsers.add_parser(
        "logs",
        help="recent events of a running parent and output of its enclave",
        description="Show what the parent remembers, oldest first. What the enclave wrote is its own word; terminal codes are escaped.",
    )
    add_options(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    return guarded("logs", arguments, partial(_show, follow=arguments.follow, as_json=arguments.json))


async def _show(parent: ParentSocket, *, follow: bool, as_json: bool) -> int:
    after = 0
    while True:
        answer = await parent.events(after, wait=WAIT_MAX if follow else 0)
        if after and answer["missed"]:
            note(f"{answer['missed']} events came too fast to be shown")
        for record in answer["events"]:
            write(json.dumps(record) if as_json else legible(record))
        after = answer["next"]
        if not follow and after >= answer["last"]:
            return 0
