"""Makes the runtime bundle from the packages of the lock and our own code: `make` reads as the list of what it takes."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import runtime
from runtime.image.bundle import elf
from runtime.image.bundle.bytecode import INTERPRETER, LIBRARIES, LOADER, compiled, standard_modules, write
from runtime.image.bundle.choice import ROOTS, WITHOUT
from runtime.image.bundle.imports import Module, closure
from runtime.image.bundle.inputs import obtain
from runtime.image.bundle.lock import BundleFailed, read_lock
from runtime.image.bundle.modules import OURS, modules_of, own_modules
from runtime.image.bundle.packages import Package, read_deb, read_wheel
from runtime.image.bundle.sbom import File, sbom

INIT = b"""#!/usr/bin/python3.11 -IS
from runtime.enclave.__main__ import main
raise SystemExit(main())
"""
_READERS = {"deb": read_deb, "pypi": read_wheel}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A bundle that was written: its files by their path, and the list beside it."""

    files: Mapping[str, File]
    sbom: Path


async def make(out: Path, inputs: Path, note: Callable[[str], None]) -> Made:
    """Writes the bundle to the folder `out`, which is made anew, and its list beside. Raises `BundleFailed` or OSError."""
    _require_replaceable(out)
    lock = read_lock()
    await obtain(lock, inputs, note)
    packages = [_READERS[each.kind](inputs / each.file, name=each.name, version=each.version, sha256=each.sha256) for each in lock]
    note(f"read {len(packages)} packages")
    files = await bundle_files(packages)
    ours = Package(name=OURS, version=runtime.__version__, kind="generic", sha256="", files={}, licences={})
    _write(out, files)
    list_path = out.with_name(out.name + ".cdx.json")
    list_path.write_bytes(sbom(files, [*packages, ours]))
    return Made(files=files, sbom=list_path)


def _require_replaceable(out: Path) -> None:
    """Removed is a bundle, of whatever version, and nothing else: a root file system has an `init` too."""
    if out.exists() and any(out.iterdir()) and not _is_ours(out / "init"):
        raise BundleFailed(f"{out} is there and is no bundle: it would be overwritten")


def _is_ours(init: Path) -> bool:
    if init.is_symlink() or not init.is_file():
        return False
    with init.open("rb") as file:
        first, _, rest = file.read(2 * len(INIT)).partition(b"\n")
    return first.startswith(b"#!/usr/bin/python3.") and rest == INIT.partition(b"\n")[2]


def _write(out: Path, files: Mapping[str, File]) -> None:
    if out.exists():
        shutil.rmtree(out)
    for place, file in sorted(files.items()):
        write(out / place, file.data, is_executable=file.is_executable)
    for folder in (out, *(path for path in out.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


async def bundle_files(packages: list[Package]) -> dict[str, File]:
    """Path -> file, of all that the bundle holds."""
    available = modules_of(packages)
    available |= {module.name: module for module in own_modules(Path(runtime.__path__[0]))}
    chosen = closure(available, ROOTS, WITHOUT)
    extensions = [module for module in chosen.values() if not module.is_source]
    programs = _programs(packages, extensions)
    sources = {module.place: module for module in chosen.values() if module.is_source}
    bytecode = await compiled(sources.values(), standard_modules(available), {place: file.data for place, file in programs.items()})
    files = {place: File(data=data, package=sources[place.removesuffix("c")].package) for place, data in bytecode.items()}
    for place, file in programs.items():
        files[place] = File(data=elf.without_symbols(file.data), package=file.package, is_executable=True)
    for module in extensions:
        files[module.place] = File(data=elf.without_symbols(module.data), package=module.package)
    files["init"] = File(data=INIT, package=OURS, is_executable=True)
    return files


def _programs(packages: list[Package], extensions: list[Module]) -> dict[str, File]:
    """The interpreter, the loader and the libraries that it has to find for them, at the places where Debian has them."""
    elves = {
        place: File(data=data, package=package.name)
        for package in packages
        for place, data in package.files.items()
        if data.startswith(elf.MAGIC)
    }
    by_name = {place.rpartition("/")[2]: file for place, file in elves.items()}
    interpreter = elves[INTERPRETER]
    found = {INTERPRETER: interpreter}
    pending = [name for data in (interpreter.data, *(module.data for module in extensions)) for name in elf.needed(data)]
    while pending:
        name = pending.pop()
        place = LOADER if name == LOADER.rpartition("/")[2] else f"{LIBRARIES}/{name}"
        if place not in found:
            if name not in by_name:
                raise BundleFailed(f"no package of the lock has the library {name}")
            found[place] = by_name[name]
            pending += elf.needed(found[place].data)
    return found
