"""Gets the packages of the lock: from a folder, else from Debian's archive by apt-get and from the package index by pip.

Nobody on the way is trusted: what is used has the digest that the lock says.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from runtime.image.bundle.lock import BundleFailed, Locked

_SAID_MAX = 2000
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


async def obtain(packages: Sequence[Locked], folder: Path, note: Callable[[str], None]) -> None:
    """Downloads into `folder` what of the packages is not there yet. All have their digest then. Raises `BundleFailed` or OSError."""
    missing = _missing(packages, folder)
    debs = [each for each in missing if each.kind == "deb"]
    wheels = [each for each in missing if each.kind == "pypi"]
    if missing:
        note(f"downloading {len(debs)} Debian packages and {len(wheels)} wheels into {folder}")
    said = ""
    if debs:
        said += await download_debs([f"{each.name}={each.version}" for each in debs], folder)
    if wheels:
        said += await download_wheels([f"{each.name}=={each.version} --hash=sha256:{each.sha256}" for each in wheels], folder)
    absent = [each.file for each in _missing(missing, folder)]
    if absent:
        raise BundleFailed(
            f"not to be had: {', '.join(absent)}. {said.strip()[-_SAID_MAX:]}\n"
            "The Debian archive keeps the newest point release only. Place the files in a folder and name it with --from "
            "(snapshot.debian.org and the package index have all that there ever was), or renew the lock with scripts/lock-bundle, "
            "which makes another release with another PCR1."
        )


async def download_debs(wanted: Sequence[str], folder: Path) -> str:
    """Asks apt-get for packages as `name` or `name=version`; what it said when something is missing."""
    command = ["apt-get", "-q", "download", *wanted]
    status, said = await _run(command, folder)
    if status != 0 and (await _run(["apt-get", "-q", "update"], folder))[0] == 0:
        status, said = await _run(command, folder)
    return said if status != 0 else ""


async def download_wheels(wanted: Sequence[str], folder: Path) -> str:
    """Asks pip for packages as lines of a requirements file with hashes; what it said when something is missing."""
    requirements = folder / "requirements.txt"
    requirements.write_text("\n".join(wanted) + "\n")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--python-version", "3.11", "--implementation", "cp", *platforms, "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes"]
    status, said = await _run([*command, *target, "--requirement", str(requirements.resolve()), "--dest", "."], folder)
    requirements.unlink()
    return said if status != 0 else ""


def digest_of(path: Path) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _missing(packages: Sequence[Locked], folder: Path) -> list[Locked]:
    folder.mkdir(parents=True, exist_ok=True)
    return [each for each in packages if not _is_there(each, folder)]


def _is_there(package: Locked, folder: Path) -> bool:
    path = folder / package.file
    if not path.is_file():
        return False
    found = digest_of(path)
    if found != package.sha256:
        raise BundleFailed(f"{path} is not the file of the lock: its SHA-256 is {found} and not {package.sha256}")
    return True


async def _run(command: Sequence[str], folder: Path) -> tuple[int, str]:
    try:
        ended = await trio.run_process(command, cwd=folder, capture_stdout=True, capture_stderr=True, check=False)
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed.\n"
    return ended.returncode, (ended.stdout + ended.stderr).decode(errors="replace")
