"""What an image is built from and how: read off the command line, or off an image.toml that says all of it."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from runtime.commands.inputs import Unusable, read_file
from runtime.image.build import Init
from runtime.image.config import ImageConfig
from runtime.settings import decode, load

NITRO_BLOBS = Path("/usr/share/nitro_enclaves/blobs")
"""Where nitro-cli keeps them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A certificate, and a key file or a command."""

    certificate: Path
    key: Path | None
    command: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`output` None builds nothing that stays; `verify` is a file to compare with. `runtime` None makes the bundle of this version."""

    image: Path
    config: Path
    output: Path | None
    verify: Path | None
    kernel: Path
    runtime: Path | None
    init: Init
    compress: bool
    allow_keys: tuple[str, ...]
    drop_xattrs: tuple[str, ...]
    signing: Signing | None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `enclave build`."""
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="an OCI layout or docker-save archive, a root file system (folder or tar), a Dockerfile, or an image.toml that names all",
    )
    parser.add_argument("-c", "--config", metavar="enclave.toml", type=Path, help="the configuration to bake")
    parser.add_argument("-o", "--output", metavar="OUT.eif", type=Path, help="the file to write")
    parser.add_argument(
        "--kernel", metavar="DIR", type=Path, help=f"a folder laid out as nitro-cli's blobs ({NITRO_BLOBS}, if it is there)"
    )
    parser.add_argument(
        "--runtime", metavar="DIR", type=Path, help="a folder made by `enclave bundle`; without it one is made and kept"
    )
    parser.add_argument(
        "--init", choices=("own", "aws"), default="own", help="who is the first process: the runtime, or AWS's init"
    )
    parser.add_argument(
        "--compress", action="store_true", help="compress the ramdisks; then the registers depend on the version of zlib"
    )
    parser.add_argument("--sign", nargs=2, metavar=("CERT", "KEY"), help="sign with a PEM certificate and its key")
    parser.add_argument(
        "--sign-command",
        nargs=2,
        metavar=("CERT", "COMMAND"),
        help="sign with a command: it gets the message on standard input and prints the ECDSA signature, DER or base64",
    )
    parser.add_argument("--allow-key", action="append", default=[], metavar="PATH", help="a private key that may be in the image")
    parser.add_argument("--drop-xattr", action="append", default=[], metavar="NAME", help="an extended attribute that may be lost")
    parser.add_argument(
        "--verify", metavar="OUT.eif", type=Path, help="write nothing: build, compare, and name the first difference"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def options_of(arguments: argparse.Namespace) -> Options:
    """Raises `Unusable` or `SettingsError`."""
    if arguments.image.endswith(".toml"):
        return _from_file(Path(arguments.image), arguments)
    if arguments.config is None:
        raise Unusable("-c enclave.toml is needed: the configuration to bake")
    if (arguments.output is None) == (arguments.verify is None):
        raise Unusable("one of -o OUT.eif and --verify OUT.eif is needed")
    if arguments.sign and arguments.sign_command:
        raise Unusable("--sign and --sign-command exclude each other")
    kernel = arguments.kernel
    if kernel is None and not NITRO_BLOBS.is_dir():
        raise Unusable(f"--kernel DIR is needed: {NITRO_BLOBS} is not there (runtime/image/README.md says where kernels come from)")
    signing = None
    if arguments.sign:
        signing = Signing(certificate=Path(arguments.sign[0]), key=Path(arguments.sign[1]), command=None)
    elif arguments.sign_command:
        signing = Signing(certificate=Path(arguments.sign_command[0]), key=None, command=arguments.sign_command[1])
    return Options(
        image=Path(arguments.image),
        config=arguments.config,
        output=arguments.output,
        verify=arguments.verify,
        kernel=kernel or NITRO_BLOBS,
        runtime=arguments.runtime,
        init=arguments.init,
        compress=arguments.compress,
        allow_keys=tuple(arguments.allow_key),
        drop_xattrs=tuple(arguments.drop_xattr),
        signing=signing,
    )


def _from_file(path: Path, arguments: argparse.Namespace) -> Options:
    others = ("config", "output", "kernel", "runtime", "compress", "sign", "sign_command", "allow_key", "drop_xattr")
    if given := [name for name in others if getattr(arguments, name)]:
        raise Unusable(f"{path} says all of it: --{given[0].replace('_', '-')} cannot be given as well")
    config = load(ImageConfig, decode(read_file(str(path)), str(path)), str(path))
    folder = path.parent
    signing = None
    if config.sign is not None:
        key = None if config.sign.key is None else folder / config.sign.key
        signing = Signing(certificate=folder / config.sign.certificate, key=key, command=config.sign.command)
    return Options(
        image=folder / config.image,
        config=folder / config.config,
        output=None if arguments.verify else folder / config.output,
        verify=arguments.verify,
        kernel=folder / config.kernel,
        runtime=None if config.runtime is None else folder / config.runtime,
        init=config.init,
        compress=config.compress,
        allow_keys=config.allow_keys,
        drop_xattrs=config.drop_xattrs,
        signing=signing,
    )
