"""The genuine documents under tests/vectors/attestation (its README says where they are from)."""

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "vectors" / "attestation"
UNDATED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Vector:
    """One document and what an independent verifier says of it."""

    file: str
    accepted: bool
    entry: dict[str, Any]

    @property
    def timestamp(self) -> datetime:
        moment: datetime = self.entry.get("timestamp", UNDATED)
        return moment

    @property
    def data(self) -> bytes:
        return document_bytes(self.file)


@cache
def vectors() -> tuple[Vector, ...]:
    manifest = tomllib.loads((FOLDER / "manifest.toml").read_text())
    return tuple(
        Vector(file=entry["file"], accepted=entry["verdict_at_timestamp"] == "accept", entry=entry) for entry in manifest["vector"]
    )


@cache
def bindings() -> tuple[dict[str, Any], ...]:
    return tuple(tomllib.loads((FOLDER / "binding.toml").read_text())["binding"])


def vector(name: str) -> Vector:
    return next(found for found in vectors() if found.file == name)


@cache
def document_bytes(name: str) -> bytes:
    return (FOLDER / name).read_bytes()
