"""bundle.lock: every package that the bundle is made of, by name, version, file and digest (`scripts/lock-bundle` writes it).

The Debian archive keeps the newest point release only, so a lock outlives what can be downloaded: its packages can be kept in a folder.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_TITLE = "All that the runtime bundle is made of (runtime/image/README.md). scripts/lock-bundle writes this file."
LOCK = Path(__file__).with_name("bundle.lock")


class BundleFailed(Exception):
    """The bundle cannot be made; the message says what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One package of the lock. `file` is the name under which it is kept and downloaded, `sha256` hexadecimal."""

    kind: Literal["deb", "pypi"]
    name: str
    version: str
    file: str
    sha256: str


def read_lock(path: Path = LOCK) -> tuple[Locked, ...]:
    """The packages in the order of the lock. Raises `BundleFailed` or OSError."""
    try:
        tables = tomllib.loads(path.read_text())
        locked = [
            Locked(kind=kind, name=each["name"], version=each["version"], file=each["file"], sha256=each["sha256"])
            for kind in ("deb", "pypi")
            for each in tables[kind]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleFailed(f"{path}: no lock of a bundle ({error!r}); scripts/lock-bundle writes one") from error
    return tuple(locked)


def written_lock(packages: tuple[Locked, ...]) -> str:
    """The text of a lock."""
    lines = [f"# {_TITLE}"]
    for each in packages:
        lines += ["", f"[[{each.kind}]]", *(f'{key} = "{getattr(each, key)}"' for key in ("name", "version", "file", "sha256"))]
    return "\n".join(lines) + "\n"
