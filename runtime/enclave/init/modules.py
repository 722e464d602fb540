"""Loads the kernel modules that an image brings: the NSM's driver, and vsock where the kernel does not have it built in.

`/modules` holds uncompressed `*.ko` files, and `modules.order` names them, one a line, in the order in which they are loaded; what stands
before the last slash of a line is ignored, so that the file can be the kernel's own. Modules that it does not name come last, by name.
They get no parameters: nothing on the kernel's command line reaches a module.
"""

import os
from collections.abc import Callable
from pathlib import Path

from runtime.enclave.init import kernel

MODULES = Path("/modules")
ORDER = "modules.order"
SUFFIX = ".ko"


def load_modules(folder: Path = MODULES, load: Callable[[int], None] = kernel.load_module) -> bool:
    """Loads all of them; whether there is any. Raises the first OSError, after all that can be loaded were."""
    errors = []
    modules = in_order(folder)
    for module in modules:
        try:
            _load(module, load)
        except FileExistsError:
            continue  # loaded already
        except OSError as error:
            error.filename = str(module)
            errors.append(error)
    if errors:
        raise errors[0]
    return bool(modules)


def in_order(folder: Path) -> list[Path]:
    """The modules of a folder as they are loaded, each once; none when it is not there. Raises OSError."""
    if not folder.is_dir():
        return []
    found = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
    order = folder / ORDER
    named = [line.strip().rpartition("/")[2] for line in order.read_text().splitlines() if line.strip()] if order.exists() else []
    return [folder / name for name in dict.fromkeys([*named, *found])]


def _load(module: Path, load: Callable[[int], None]) -> None:
    descriptor = os.open(module, os.O_RDONLY | os.O_CLOEXEC)
    try:
        load(descriptor)
    finally:
        os.close(descriptor)
