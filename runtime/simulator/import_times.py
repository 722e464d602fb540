"""How long the first process takes to load its code, by package: Python's own count (`-X importtime`), without the virtual environment."""

import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import trio

import runtime

STANDARD = "Python's own"
_LINE = re.compile(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)")
_TO_THE_FIRST_RECORD = ("runtime.enclave.__main__", "trio", "runtime.enclave.platform", "runtime.enclave.run")
"""As runtime/enclave/__main__.py imports them."""
_THE_REST = "runtime.enclave.boot"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Of one package: milliseconds in its own modules, and how many modules those are."""

    package: str
    milliseconds: float
    modules: int


async def import_times(*, whole_boot: bool) -> list[Loaded]:
    """By package, the slowest first: what is loaded before the first record is on its way, or all that PID 1 loads."""
    modules = (*_TO_THE_FIRST_RECORD, _THE_REST) if whole_boot else _TO_THE_FIRST_RECORD
    places = [str(Path(package.__file__ or "").parents[1]) for package in (runtime, trio)]
    code = f"import sys; sys.path += {places!r}; import {', '.join(modules)}"
    command = [sys.executable, "-I", "-S", "-X", "importtime", "-c", code]
    finished = await trio.run_process(command, capture_stderr=True)
    own: dict[str, list[int]] = defaultdict(list)
    for microseconds, module in _LINE.findall(finished.stderr.decode()):
        package = module.partition(".")[0]
        own[STANDARD if package in sys.stdlib_module_names else package].append(int(microseconds))
    loaded = [Loaded(package, sum(times) / 1000, len(times)) for package, times in own.items()]
    return sorted(loaded, key=lambda each: each.milliseconds, reverse=True)
