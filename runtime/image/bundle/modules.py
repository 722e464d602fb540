"""What could be imported from the packages and from our own code, by name, and where each module lies in the bundle."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.image.bundle import stand_ins
from runtime.image.bundle.imports import Module
from runtime.image.bundle.packages import Package

LIBRARY = "usr/lib/python3.11/"
COMPILED_SUFFIXES = (".cpython-311-x86_64-linux-gnu.so", ".abi3.so")
OURS = "enclave-runtime"
_DYNAMIC = f"{LIBRARY}lib-dynload/"
_STAND_INS = {"ssl": "ssl.py", "ctypes.util": "ctypes_util.py"}


def modules_of(packages: Iterable[Package]) -> dict[str, Module]:
    """All modules of Python itself and of the wheels; the stand-ins instead of the modules that they stand in for."""
    found = {}
    for package in packages:
        prefix = LIBRARY if package.kind == "deb" else ""
        for place, data in package.files.items():
            if place.startswith(prefix) and ".dist-info/" not in place:
                module = _module(place.removeprefix(_DYNAMIC).removeprefix(prefix), place, data, package)
                if module is not None:
                    found[module.name] = module
    folder = Path(stand_ins.__path__[0])
    for name, file in _STAND_INS.items():
        place = f"{LIBRARY}{name.replace('.', '/')}.py"
        found[name] = Module(name=name, place=place, data=(folder / file).read_bytes(), package=OURS)
    return found


def own_modules(folder: Path) -> Iterator[Module]:
    """The modules of our own code, `folder` being the package `runtime`."""
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder.parent).as_posix()
        parts = place.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        yield Module(name=name, place=LIBRARY + place, data=path.read_bytes(), package=OURS, is_package=is_package)


def _module(path: str, place: str, data: bytes, package: Package) -> Module | None:
    is_source = path.endswith(".py")
    suffix = ".py" if is_source else next((each for each in COMPILED_SUFFIXES if path.endswith(each)), None)
    if suffix is None:
        return None
    parts = path.removesuffix(suffix).split("/")
    is_package = parts[-1] == "__init__"
    return Module(
        name=".".join(parts[:-1] if is_package else parts),
        place=place if package.kind == "deb" else LIBRARY + place,
        data=data,
        package=package.name,
        is_package=is_package,
        is_source=is_source,
    )
