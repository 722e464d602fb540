"""`enclave bundle`: the runtime as a folder that runs in an enclave image: the same for every customer of a release.

Runs on the build machine. It trusts the lock and nothing that it downloads.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import trio

from runtime.commands.output import fail, note, write
from runtime.image.bundle.lock import BundleFailed
from runtime.image.bundle.make import Made, make


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `bundle`. Exit status: 0 made, 1 not made, 2 usage."""
    parser = subparsers.add_parser(
        "bundle",
        help="make the runtime bundle of an enclave image",
        description="Make the runtime bundle, the folder that becomes ramdisk 0. Exit status: 0 made, 1 not made, 2 usage.",
    )
    parser.add_argument("out", metavar="OUT", help="the folder to make; OUT.cdx.json beside it lists what is in it")
    parser.add_argument(
        "--from",
        dest="inputs",
        metavar="DIR",
        help="a folder with the packages of the lock; what is missing there is downloaded into it (default: OUT.inputs)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out).resolve()  # so that it has a name, to which those beside it are added
    inputs = out.with_name(f"{out.name}.inputs") if arguments.inputs is None else Path(arguments.inputs)
    try:
        made = trio.run(partial(make, out, inputs, lambda text: note(f"enclave bundle: {text}")))
    except (BundleFailed, OSError) as error:
        return fail("bundle", error if isinstance(error, OSError) else str(error), 1)
    _show(out, made, as_json=arguments.json)
    return 0


def _show(out: Path, made: Made, *, as_json: bool) -> None:
    sizes: dict[str, int] = {}
    for file in made.files.values():
        sizes[file.package] = sizes.get(file.package, 0) + len(file.data)
    total = sum(sizes.values())
    if as_json:
        write(json.dumps({"bundle": str(out), "sbom": str(made.sbom), "files": len(made.files), "bytes": total, "packages": sizes}))
        return
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        write(f"{size / 1e6:7.2f} MB  {name}")
    write(f"{total / 1e6:7.2f} MB  in {len(made.files)} files: {out}; all of them are listed in {made.sbom}")
