"""Writes bundle.lock anew: the newest Debian packages of this machine's release, and the wheels of requirements.lock.

Run by scripts/lock-bundle, from the project's folder, on the Debian release that the bundle is made of.
"""

import sys
import tempfile
from pathlib import Path
from typing import Literal

import trio

from runtime.image.bundle.inputs import digest_of, download_debs, download_wheels
from runtime.image.bundle.lock import LOCK, BundleFailed, Locked, written_lock

DEBIAN = (
    *("gcc-12-base", "libc6", "libexpat1", "libffi8", "libgcc-s1"),  # the first for the licence of the last
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal", "zlib1g"),
)
WHEELS = (
    *("attrs", "cffi", "cryptography", "h11", "httptools", "idna"),
    *("outcome", "pyopenssl", "sniffio", "sortedcontainers", "trio", "typing-extensions"),
)
"""The five dependencies of pyproject.toml and what they bring; pycparser is for compiling with cffi, which nobody does here."""


async def renew(requirements: str) -> None:
    """Takes the text of requirements.lock. Raises `BundleFailed` or OSError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = await download_debs(DEBIAN, folder)
        said += await download_wheels(wanted_wheels(requirements), folder)
        packages = [_locked("deb", package, folder, f"{package}_*.deb", said) for package in sorted(DEBIAN)]
        packages += [_locked("pypi", package, folder, f"{package.replace('-', '_')}-*.whl", said) for package in sorted(WHEELS)]
    LOCK.write_text(written_lock(tuple(packages)))


def wanted_wheels(requirements: str) -> list[str]:
    """The lines of requirements.lock, joined, that are about packages of the bundle."""
    lines = requirements.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.partition("==")[0] in WHEELS]


def _locked(kind: Literal["deb", "pypi"], name: str, folder: Path, pattern: str, said: str) -> Locked:
    files = list(folder.glob(pattern))
    if len(files) != 1:
        raise BundleFailed(f"{name}: {len(files)} files of this name were downloaded. {said}")
    file = files[0]
    version = file.name.split("_")[1].replace("%3a", ":") if kind == "deb" else file.name.split("-")[1]
    return Locked(kind=kind, name=name, version=version, file=file.name, sha256=digest_of(file))


if __name__ == "__main__":
    try:
        trio.run(renew, Path("requirements.lock").read_text())
    except (BundleFailed, OSError) as error:
        sys.exit(f"lock-bundle: {error}")
