"""`enclave simulate`: the whole system on this machine."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.commands.output import fail

if TYPE_CHECKING:
    from runtime.net.endpoint import Endpoint

DEFAULT_CONFIG = Path("config/enclave.toml")
DEFAULT_FOLDER = Path(".state/simulation")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `simulate`. Exit status: 0 every step held (or Ctrl-C), 1 not, 2 usage; with --only-process that of the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="run the whole system on this machine",
        usage="%(prog)s [enclave.toml] [--dir DIR] [--listen tcp:HOST:PORT] [--name NAME] [--learn-egress] [--once] [--json]\n"
        "       %(prog)s --only-process [-c enclave.toml] [--stop-grace 20s] -- CMD ARGS...",
        description="Start provisioner, parent, enclave and customer process here, attest the enclave, make a request, then serve. "
        "With --only-process: run one command under the enclave's first process, and nothing else.",
    )
    parser.add_argument("words", nargs="*", metavar="enclave.toml", help=f"({DEFAULT_CONFIG})")
    parser.add_argument(
        "--dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help=f"where the state is kept ({DEFAULT_FOLDER})"
    )
    parser.add_argument("--listen", type=_endpoint, metavar="tcp:HOST:PORT", help="the public address")
    parser.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a TLS name in place of the config's; repeatable"
    )
    parser.add_argument(
        "--learn-egress", action="store_true", help="at the end, print the smallest [egress] for what the processes asked for"
    )
    parser.add_argument("--once", action="store_true", help="end after the client's request: 0 only if every step held")
    parser.add_argument("--json", action="store_true", help="the steps as JSON lines")
    parser.add_argument("--only-process", action="store_true", help="run CMD as the first process would; exit status is CMD's")
    parser.add_argument("-c", dest="config", type=Path, metavar="enclave.toml", help="CMD gets the settings of its first process")
    parser.add_argument("--stop-grace", type=_duration, metavar="20s", help="from SIGTERM to SIGKILL (20s, or the config's)")
    parser.set_defaults(handler=lambda arguments: _run(parser, arguments))


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.only_process:
        if not arguments.words:
            parser.error("--only-process needs a command: -- CMD ARGS...")
        return _run_only_process(arguments)
    if len(arguments.words) > 1:
        parser.error(f"one enclave.toml, and not {len(arguments.words)}")
    if arguments.config is not None or arguments.stop_grace is not None:
        parser.error("-c and --stop-grace go with --only-process")
    return _run_whole(arguments)


def _run_only_process(arguments: argparse.Namespace) -> int:
    """Imports little: the command is to start at once."""
    from runtime.simulator.only_process import inherited_command, run_only_process

    command, stop_grace = inherited_command(arguments.words), arguments.stop_grace
    if arguments.config is not None:
        import tomllib

        from runtime.settings import SettingsError
        from runtime.simulator.only_process_config import with_settings

        try:
            command, grace = with_settings(command, arguments.config)
        except SettingsError as error:
            return fail("simulate", str(error), 1)
        except tomllib.TOMLDecodeError as error:
            return fail("simulate", f"{arguments.config}: {error}", 1)
        except OSError as error:
            return fail("simulate", error, 1)
        stop_grace = grace if stop_grace is None else stop_grace
    return run_only_process(command, stop_grace=20.0 if stop_grace is None else stop_grace)


def _run_whole(arguments: argparse.Namespace) -> int:
    import tomllib

    import trio

    from runtime.net.endpoint import Tcp
    from runtime.settings import SettingsError
    from runtime.simulator.around import SimulationFailed
    from runtime.simulator.simulate import Options, simulate

    config = Path(arguments.words[0]) if arguments.words else DEFAULT_CONFIG
    options = Options(
        config=config,
        folder=arguments.dir,
        listen=arguments.listen or Tcp("127.0.0.1", 0),
        names=tuple(arguments.name),
        once=arguments.once,
        as_json=arguments.json,
        learn_egress=arguments.learn_egress,
    )
    try:
        trio.run(simulate, options)
    except (SettingsError, SimulationFailed) as error:
        return fail("simulate", str(error), 1)
    except tomllib.TOMLDecodeError as error:
        return fail("simulate", f"{config}: {error}", 1)
    except OSError as error:
        return fail("simulate", error, 1)
    return 0


def _endpoint(text: str) -> "Endpoint":
    from runtime.net.endpoint import Tcp

    try:
        return Tcp.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _duration(text: str) -> float:
    from runtime.settings_rules import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
