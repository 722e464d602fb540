"""A Dockerfile, built by buildah where that is installed: its language is buildah's business, and what comes out is an OCI layout."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from runtime.image.contents import BadImage

NAMES = ("Dockerfile", "Containerfile")
_OTHERS = ("oci-layout", "manifest.json", "index.json", "etc", "usr", "bin")
_SAID_MAX = 2000


def dockerfile_of(path: Path) -> Path | None:
    """The Dockerfile that a path is or holds, if it does. An image or a root file system that has one of its own is built by nobody."""
    if path.is_file():
        return path if path.name in NAMES or path.suffix in (".Dockerfile", ".dockerfile") else None
    if any((path / name).exists() for name in _OTHERS):
        return None
    return next((path / name for name in NAMES if (path / name).is_file()), None)


@contextmanager
def built(dockerfile: Path, platform: str, scratch: Path, progress: Callable[[str], None]) -> Iterator[Path]:
    """The OCI layout of what a Dockerfile makes, in a folder below `scratch` that is gone afterwards. Raises `BadImage` or OSError."""
    if shutil.which("buildah") is None:
        raise BadImage(
            f"{dockerfile}: buildah is needed to build a Dockerfile (Debian: apt-get install buildah). "
            "Or build it as you do now and give what comes out: `docker save IMAGE > image.tar`, "
            "`docker buildx build -o type=oci,dest=image.tar .`, `podman save --format oci-archive -o image.tar IMAGE`"
        )
    with tempfile.TemporaryDirectory(prefix=".enclave-build.", dir=scratch) as name:
        layout, identity = Path(name, "layout"), Path(name, "id")
        progress(f"buildah builds {dockerfile}")
        # One time for all files and no layers of earlier builds: the same context gives the same image.
        options = (
            "--isolation",
            "chroot",
            "--platform",
            platform,
            "--timestamp",
            "0",
            "--layers=false",
            "--iidfile",
            str(identity),
        )
        trio.run(_run, ("buildah", "bud", *options, "--file", str(dockerfile), str(dockerfile.parent)))
        image = identity.read_text().strip()
        try:
            trio.run(_run, ("buildah", "push", "--format", "oci", image, f"oci:{layout}:latest"))
        finally:
            trio.run(_run, ("buildah", "rmi", "--force", image))
        yield layout


async def _run(command: tuple[str, ...]) -> None:
    ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).decode(errors="replace").strip()[-_SAID_MAX:]
        raise BadImage(f"{' '.join(command[:2])} ended with {ended.returncode}: {said}")
