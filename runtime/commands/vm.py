"""`enclave vm`: an image file, booted as it is in a virtual machine on this machine."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.commands.output import fail, write

if TYPE_CHECKING:
    from runtime.net.endpoint import Endpoint

DEFAULT_FOLDER = Path(".state/vm")
DEFAULT_MEMORY_MIB = 512
_MIB = 1 << 20


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `vm`. Exit status: 0 every step held (or Ctrl-C), 1 not, 2 usage."""
    parser = subparsers.add_parser(
        "vm",
        help="boot an image in a virtual machine",
        usage="%(prog)s OUT.eif [--dir DIR] [--cpus N] [--memory SIZE] [--listen tcp:HOST:PORT] [--once] [--json]\n"
        "       %(prog)s --prepare enclave.toml [--dir DIR]",
        description="Boot an enclave image file, byte for byte, with a simulated security module behind the kernel's own driver; "
        "provisioner, parent and a client run beside it.",
    )
    parser.add_argument("image", nargs="?", type=Path, metavar="OUT.eif", help="the image, built from a config of --prepare")
    parser.add_argument(
        "--prepare", type=Path, metavar="enclave.toml", help="write DIR/enclave/enclave.toml, to build an image from"
    )
    parser.add_argument(
        "--dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help=f"where the state is kept ({DEFAULT_FOLDER})"
    )
    parser.add_argument("--cpus", type=_count, default=2, metavar="N", help="processors of the machine (2)")
    parser.add_argument("--memory", type=_size, default=DEFAULT_MEMORY_MIB, metavar="SIZE", help=f"({DEFAULT_MEMORY_MIB}MiB)")
    parser.add_argument("--listen", type=_endpoint, metavar="tcp:HOST:PORT", help="the public address")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="how instructions are carried out (auto)")
    parser.add_argument("--qemu", type=Path, metavar="DIR", help="where scripts/vm-setup put QEMU (~/.cache/enclave-runtime/qemu)")
    parser.add_argument("--once", action="store_true", help="drain after the client's request: 0 only if every step held")
    parser.add_argument("--json", action="store_true", help="the steps as JSON lines")
    parser.set_defaults(handler=lambda arguments: _run(parser, arguments))


def _run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if (arguments.image is None) is (arguments.prepare is None):
        parser.error("one of OUT.eif and --prepare enclave.toml is needed")
    import tomllib

    from runtime.protocol.errors import Malformed
    from runtime.settings import SettingsError
    from runtime.simulator.around import SimulationFailed
    from runtime.simulator.vm.qemu import VmUnavailable

    try:
        if arguments.prepare is not None:
            from runtime.simulator.vm.prepare import prepare

            write(str(prepare(arguments.dir, arguments.prepare)))
        else:
            _boot(arguments)
    except (SettingsError, SimulationFailed, VmUnavailable) as error:
        return fail("vm", str(error), 1)
    except Malformed as error:
        return fail("vm", f"{arguments.image}: {error}", 1)
    except tomllib.TOMLDecodeError as error:
        return fail("vm", f"{arguments.prepare}: {error}", 1)
    except OSError as error:
        return fail("vm", error, 1)
    return 0


def _boot(arguments: argparse.Namespace) -> None:
    import trio

    from runtime.net.endpoint import Tcp
    from runtime.simulator.vm.qemu import default_folder
    from runtime.simulator.vm.vm import Options, run_vm

    options = Options(
        image=arguments.image,
        folder=arguments.dir,
        listen=arguments.listen or Tcp("127.0.0.1", 0),
        qemu=arguments.qemu or default_folder(),
        processors=arguments.cpus,
        memory_mib=arguments.memory,
        accelerator=arguments.accel,
        once=arguments.once,
        as_json=arguments.json,
    )
    trio.run(run_vm, options)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("1 to 64")
    return int(text)


def _size(text: str) -> int:
    from runtime.settings_rules import parse_size

    try:
        size = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size < 64 * _MIB or size % _MIB:
        raise argparse.ArgumentTypeError("whole MiB, 64 of them at the least")
    return size // _MIB


def _endpoint(text: str) -> "Endpoint":
    from runtime.net.endpoint import Tcp

    try:
        return Tcp.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
