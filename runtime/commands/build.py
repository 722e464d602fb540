"""`enclave build`: from a container image and an enclave.toml to an enclave image file, its reference values and the list of its contents.

Runs on the build machine, without docker and without extracting anything. The image comes from the customer and may come from anybody.
"""

import argparse
import hashlib
import json
import shlex
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio

import runtime
from runtime.commands.build_options import Options, Signing, add_options, options_of
from runtime.commands.build_report import as_json, as_text
from runtime.commands.inputs import Unusable, map_file, read_file
from runtime.commands.output import fail, note, write
from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.image.build import Image, Recipe, assemble
from runtime.image.bundle.lock import BundleFailed
from runtime.image.bundle.make import make
from runtime.image.contents import BadImage
from runtime.image.declared import Declared, account_of, image_json
from runtime.image.difference import difference
from runtime.image.dockerfile import built, dockerfile_of
from runtime.image.eif import read_eif
from runtime.image.folders import read_runtime_folder
from runtime.image.judge import judge
from runtime.image.kernel import read_kernel
from runtime.image.keys import refuse_private_keys
from runtime.image.measure import measure
from runtime.image.outputs import all_or_nothing
from runtime.image.sbom import read_bundle_list, write_sbom
from runtime.image.signing import CannotSign, Signer, sign_with, sign_with_key, signer
from runtime.image.sources import Source, read_source
from runtime.image.spool import open_spool
from runtime.net.clock import utc_now
from runtime.protocol.errors import Malformed
from runtime.settings import SettingsError
from runtime.verifier.reference import ReferenceValues, write_reference

_COMMAND_SECONDS = 120.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `build`. Exit status: 0 built, or verified as equal; 1 not; 2 usage."""
    parser = subparsers.add_parser(
        "build",
        help="make an enclave image file from a container image",
        description="Make an enclave image file. Exit status: 0 built, or verified as equal; 1 not; 2 usage.",
    )
    add_options(parser)
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Builds, and writes or compares."""
    try:
        options = options_of(arguments)
    except (Unusable, SettingsError) as error:
        return fail("build", str(error), 2)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing half-written stays behind
    try:
        with ExitStack() as opened:
            made = _build(options, opened)
            if options.verify is not None:
                return _verify(options.verify, made, as_lines=not arguments.json)
            written = _write(options, made)
    except (BadImage, CannotSign, SettingsError, Unusable) as error:
        return fail("build", str(error), 1)
    except Malformed as error:
        return fail("build", error.detail, 1)
    except OSError as error:
        return fail("build", error, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    for each in made.notes:
        note(f"enclave build: {each}")
    if arguments.json:
        write(json.dumps(as_json(made.image, made.source, made.notes, written), indent=2))
    else:
        write(as_text(made.image, made.source, written))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """An image, what it was made from, and what people should know about it."""

    image: Image
    recipe: Recipe
    source: Source
    bundle: list[object]
    notes: tuple[str, ...]


def _build(options: Options, opened: ExitStack) -> _Made:
    """Everything that the image needs, in the order in which it is cheap to find something wrong."""
    raw = read_file(str(options.config))
    config = load_enclave_config(raw, str(options.config))
    signing = None if options.signing is None else _signer(options.signing)
    kernel = read_kernel(options.kernel)
    bundle = options.runtime or _own_runtime()
    scratch = Path(tempfile.gettempdir()) if options.output is None else options.output.parent
    spool = open_spool(scratch)
    opened.callback(spool.file.close)
    image = options.image
    if dockerfile := dockerfile_of(image):
        image = opened.enter_context(built(dockerfile, kernel.platform, scratch, _progress))
    source = read_source(image, kernel.platform, spool, _progress)
    _require_commands(config, source.declared)
    verdict = judge(source, options.drop_xattrs)
    _progress("looking for private keys")
    allowed = refuse_private_keys(source.tree, spool.read, options.allow_keys)
    account = account_of(source.declared.user, source.tree, spool.read) if _wants_user(config) else None
    recipe = Recipe(
        kernel=kernel,
        runtime=read_runtime_folder(bundle),
        root=source.tree,
        read=spool.read,
        config=raw,
        image=image_json(source.declared, account),
        name=config.enclave.id,
        epoch=config.enclave.epoch,
        config_digest=config.digest,
        init=options.init,
        is_compressed=options.compress,
        tool_version=version("enclave-runtime"),
    )
    notes = [*kernel.warnings, *verdict.notes, *(f"a private key is baked, as allowed: /{path}" for path in allowed)]
    if signing is not None and (warning := signing.warning(utc_now())):
        notes.append(warning)
    return _Made(
        image=assemble(recipe, scratch, _progress, signing),
        recipe=recipe,
        source=source,
        bundle=read_bundle_list(bundle),
        notes=tuple(notes),
    )


def _write(options: Options, made: _Made) -> list[Path]:
    assert options.output is not None
    reference, contents = options.output.with_suffix(".reference.toml"), options.output.with_suffix(".sbom.json")
    with all_or_nothing() as outputs:
        _progress(f"writing {options.output}")
        outputs.write(reference, [write_reference(ReferenceValues(measurements=(made.image.reference,))).encode()])
        outputs.write(contents, [write_sbom(made.image, made.recipe, made.bundle)])
        outputs.write(options.output, made.image.data())
    return [options.output, reference, contents]


def _verify(path: Path, made: _Made, *, as_lines: bool) -> int:
    """Compares with a file that exists. Its signature is judged by itself: no two of one image are alike."""
    theirs = read_eif(map_file(path))
    found = difference(theirs, made.image.eif)
    measured = measure(theirs)
    if found is None and measured.signature is not None and not measured.is_signature_valid:
        found = "the signature is not of this image"
    if not as_lines:
        write(json.dumps({"Equal": found is None, "Difference": found}))
    elif found is None:
        write(f"{path} is what this build gives; PCR0 {made.image.pcrs[0].hex()}")
    if found is not None:
        return fail("build", f"{path}: {found}", 1)
    return 0


def _signer(signing: Signing) -> Signer:
    pem = read_file(str(signing.certificate))
    if signing.key is not None:
        return signer(pem, sign_with_key(read_file(str(signing.key)), pem), utc_now())
    words = shlex.split(signing.command or "")
    if not words:
        raise CannotSign("the command that signs is empty")
    return signer(pem, sign_with(lambda message: trio.run(_run_command, words, message)), utc_now())


async def _run_command(words: list[str], message: bytes) -> bytes:
    try:
        with trio.fail_after(_COMMAND_SECONDS):
            ended = await trio.run_process(words, stdin=message, capture_stdout=True, check=False)
    except trio.TooSlowError:
        raise CannotSign(f"{words[0]} did not sign within {_COMMAND_SECONDS:g} s") from None
    except OSError as error:
        raise CannotSign(f"{words[0]}: {error.strerror}") from None
    if ended.returncode != 0:
        raise CannotSign(f"{words[0]} ended with {ended.returncode} and did not sign")
    return bytes(ended.stdout)


def _require_commands(config: EnclaveConfig, declared: Declared) -> None:
    for process in config.process:
        if process.command is None and not declared.entrypoint and not declared.command:
            raise BadImage(f"process {process.name} has no command in enclave.toml, and the image has neither Entrypoint nor Cmd")


def _wants_user(config: EnclaveConfig) -> bool:
    """Whether any process runs as whom the image says."""
    return any(process.user is None for process in config.process)


def _own_runtime() -> Path:
    """The bundle of this very code, made once for each state of it. Raises `BadImage` or OSError."""
    folder = Path.home() / ".cache" / "enclave-runtime" / f"bundle-{_code_digest()[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        pending = Path(tempfile.mkdtemp(prefix=".bundle.", dir=folder.parent))
        try:
            made = trio.run(partial(make, pending / "bundle", folder.parent / "packages", _progress))
            made.sbom.replace(folder.with_name(f"{folder.name}.cdx.json"))
            try:
                (pending / "bundle").replace(folder)
            except OSError:
                if not folder.is_dir():  # else another build was first: the same code gives the same bundle
                    raise
        except BundleFailed as error:
            raise BadImage(str(error)) from None
        finally:
            shutil.rmtree(pending)
    return folder


def _code_digest() -> str:
    digest = hashlib.sha256()
    base = Path(runtime.__path__[0])
    for path in sorted(each for each in base.rglob("*") if each.suffix in (".py", ".lock")):
        digest.update(f"{path.relative_to(base)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _progress(text: str) -> None:
    note(f"enclave build: {text}")
