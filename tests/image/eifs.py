"""The image files under tests/vectors/eif: made by AWS's own tool or altered by hand, with the registers that it printed."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "vectors" / "eif"


@dataclass(frozen=True, kw_only=True)
class EifVector:
    """One file, whether it is an image, and its registers by their names in nitro-cli."""

    file: str
    accepted: bool
    pcrs: dict[str, str]

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


@cache
def eifs() -> tuple[EifVector, ...]:
    manifest = tomllib.loads((FOLDER / "manifest.toml").read_text())
    return tuple(
        EifVector(file=each["file"], accepted=each["expect"] == "accept", pcrs=each.get("pcrs", {})) for each in manifest["vector"]
    )


def genuine(name: str) -> bytes:
    """The bytes of one of them."""
    return (FOLDER / name).read_bytes()
