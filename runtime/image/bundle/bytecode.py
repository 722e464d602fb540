"""Runs compile.py by the interpreter of the bundle, which needs nothing of the build machine but its kernel."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio

from runtime.image.bundle import compile as compiler
from runtime.image.bundle.imports import Module
from runtime.image.bundle.lock import BundleFailed
from runtime.image.bundle.modules import LIBRARY

LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = "lib/x86_64-linux-gnu"
INTERPRETER = "usr/bin/python3.11"
_TREE = "tree"


async def compiled(modules: Iterable[Module], standard: Iterable[Module], programs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Path in the bundle -> bytecode, of all `modules`. The compiler runs with `standard` and `programs`. Raises `BundleFailed`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module in standard:
            write(folder / module.place, module.data)
        for place, data in programs.items():
            write(folder / place, data, is_executable=True)
        tree = folder / _TREE
        for module in modules:
            write(tree / module.place, module.data)
        interpreter = [str(folder / LOADER), "--library-path", str(folder / LIBRARIES), str(folder / INTERPRETER)]
        command = [*interpreter, "-IS", "-X", "no_debug_ranges", compiler.__file__, str(tree), "/"]
        ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, env={}, check=False)
        if ended.returncode != 0:
            raise BundleFailed(f"the bundle's own interpreter failed: {ended.stderr.decode(errors='replace')}")
        return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*.pyc")}


def write(path: Path, data: bytes, *, is_executable: bool = False) -> None:
    """A file with the mode that it has in an image, whatever the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if is_executable else 0o644)


def standard_modules(modules: Mapping[str, Module]) -> list[Module]:
    """Those of Python itself, as they come: the compiler may need others than the bundle."""
    return [module for module in modules.values() if module.package.startswith("libpython") and module.place.startswith(LIBRARY)]
