"""The `enclave` command: one sub-command for each role, each in a file of its own under runtime/commands.

A command is imported only when it is the one that was asked for, so that `enclave verify` starts as fast as it can.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import runtime

COMMANDS = (
    *("simulate", "verify", "attest", "check", "parent", "status", "logs", "drain"),
    *("provisioner", "registry", "audit", "logs-open", "measure", "egress", "bundle", "vm", "build", "cert"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="enclave", description="Enclave Runtime: attested secrets, TLS and traffic for AWS Nitro Enclaves."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    wanted = words[0] if words and words[0] in COMMANDS else None
    for name in COMMANDS if wanted is None else (wanted,):
        import_module(f"runtime.commands.{name.replace('-', '_')}").add_parser(subparsers)
    parsed = parser.parse_args(words)
    try:
        return int(parsed.handler(parsed))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(runtime.__version__ + "\n")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
