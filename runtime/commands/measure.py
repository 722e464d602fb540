"""`enclave measure`: what an enclave of an image file will measure, in the shape of `nitro-cli describe-eif`; and what a launch adds to it.

Runs on the build machine or where a policy is written. It believes nothing that the file says of itself.
"""

import argparse
import json
from pathlib import Path

from runtime.commands.inputs import Unusable, map_file, read_file
from runtime.commands.output import note, write
from runtime.image.eif import read_eif
from runtime.image.measure import Measured, described, measure
from runtime.protocol.digest import digest
from runtime.protocol.errors import Malformed
from runtime.protocol.measurements import (
    CONFIG_PCR,
    INSTANCE_PCR,
    LIVE_PCR,
    ROLE_PCR,
    config_commitment,
    extended_once,
    instance_register,
    live_commitment,
    role_register,
)

_NAMES = {
    0: "kernel, command line and every ramdisk",
    1: "kernel, command line and the first ramdisk: the release of the runtime",
    2: "the other ramdisks: the application and its configuration",
    3: "the role of the instance",
    4: "the instance",
    8: "the signer",
    16: "the configuration, and what the parent adds to it",
    18: "that the secrets were opened",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `measure`. Exit status: 0 measured, 1 no image or a signature that does not verify, 2 usage."""
    parser = subparsers.add_parser(
        "measure",
        help="the registers of an enclave image file",
        description="Measure an enclave image file, ours or nitro-cli's. Exit status: 0 measured, 1 no image or a bad signature, 2 usage.",
    )
    parser.add_argument("file", metavar="FILE.eif", help="the image")
    parser.add_argument("--predict", action="store_true", help="add the registers that a launch decides, from the options below")
    parser.add_argument("--role", metavar="ARN", help="the instance's IAM role, for PCR3")
    parser.add_argument("--instance", metavar="ID", help="the instance's id, for PCR4")
    parser.add_argument("--config", metavar="ENCLAVE.toml", help="the baked configuration, for PCR16; without it PCR16 is left out")
    parser.add_argument(
        "--host-parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        type=_parameter,
        help="what the parent's configuration hands in, for PCR16; as often as needed",
    )
    parser.add_argument("--json", action="store_true", help="what nitro-cli describe-eif prints")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Measures the file that `arguments` names and gives the exit status."""
    launch = arguments.role or arguments.instance or arguments.config or arguments.host_parameter
    if launch and not arguments.predict:
        note("enclave measure: --role, --instance, --config and --host-parameter say how an image is launched: add --predict")
        return 2
    if arguments.host_parameter and not arguments.config:
        note("enclave measure: --host-parameter counts only together with --config")
        return 2
    try:
        predicted = _predicted(arguments) if arguments.predict else {}
        measured = measure(read_eif(map_file(Path(arguments.file))))
    except Unusable as error:
        note(f"enclave measure: {error}")
        return 2
    except Malformed as error:
        note(f"enclave measure: {arguments.file}: {error.detail}")
        return 1
    answer = described(measured)
    registers = {**measured.pcrs, **predicted}
    answer["Measurements"].update({f"PCR{number}": value.hex() for number, value in sorted(predicted.items())})
    write(json.dumps(answer, indent=2) if arguments.json else _as_text(measured, registers))
    if measured.signature is not None and not measured.is_signature_valid:
        note(f"enclave measure: {arguments.file}: the signature is not of this image: nitro-cli will refuse to start it")
        return 1
    return 0


def _predicted(arguments: argparse.Namespace) -> dict[int, bytes]:
    registers = {LIVE_PCR: extended_once(live_commitment())}
    registers[ROLE_PCR] = role_register(arguments.role) if arguments.role else bytes(48)
    if arguments.instance:
        registers[INSTANCE_PCR] = instance_register(arguments.instance)
    if arguments.config:
        parameters = dict(arguments.host_parameter)
        registers[CONFIG_PCR] = extended_once(config_commitment(digest(read_file(arguments.config)), parameters))
    return registers


def _as_text(measured: Measured, registers: dict[int, bytes]) -> str:
    lines = []
    for number, value in sorted(registers.items()):
        lines.append(f"PCR{number:<2}  {value.hex()}")
        lines.append(f"       {_NAMES[number]}")
    if measured.signature is not None:
        until = measured.signature.certificate.not_valid_after_utc
        verdict = "valid" if measured.is_signature_valid else "NOT VALID for this image"
        lines.append(f"signature {verdict}; the certificate ends {until:%Y-%m-%d}")
    return "\n".join(lines)


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value
