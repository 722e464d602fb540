"""`enclave simulate`: the whole system on this machine."""

import argparse
import tomllib
from pathlib import Path

import trio

from runtime.commands.output import note
from runtime.net.endpoint import Endpoint, Tcp
from runtime.settings import SettingsError

DEFAULT_FOLDER = Path(".state/simulation")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `simulate`. Exit status: 0 every step held (or Ctrl-C), 1 not, 2 usage."""
    parser = subparsers.add_parser(
        "simulate",
        help="run the whole system on this machine",
        description="Start provisioner, parent, enclave and customer process here, attest the enclave, make a request, then serve.",
    )
    parser.add_argument("config", nargs="?", type=Path, default=Path("config/enclave.toml"), metavar="enclave.toml")
    parser.add_argument(
        "--dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help=f"where the state is kept ({DEFAULT_FOLDER})"
    )
    parser.add_argument("--listen", type=_endpoint, default=Tcp("127.0.0.1", 0), metavar="tcp:HOST:PORT", help="the public address")
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a TLS name in place of the config's; repeatable"
    )
    parser.add_argument("--once", action="store_true", help="end after the client's request: 0 only if every step held")
    parser.add_argument("--json", action="store_true", help="the steps as JSON lines")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    from runtime.simulator.simulate import Options, SimulationFailed, simulate

    options = Options(
        config=arguments.config,
        folder=arguments.dir,
        listen=arguments.listen,
        names=tuple(arguments.name),
        once=arguments.once,
        as_json=arguments.json,
    )
    try:
        return trio.run(simulate, options)
    except (SettingsError, SimulationFailed) as error:
        return _fail(str(error))
    except tomllib.TOMLDecodeError as error:
        return _fail(f"{arguments.config}: {error}")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _endpoint(text: str) -> Endpoint:
    try:
        return Tcp.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fail(message: str) -> int:
    note(f"enclave simulate: {message}")
    return 1
