"""What `enclave build` says when it is done: what was baked, what it costs, what it will measure, what it needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.image.build import Image
from runtime.image.sources import Source

_SHOWN = 12


def as_json(image: Image, source: Source, notes: Sequence[str], written: Sequence[Path]) -> dict[str, Any]:
    """For machines."""
    return {
        "Measurements": {
            "HashAlgorithm": "Sha384 { ... }",
            **{f"PCR{number}": value.hex() for number, value in image.pcrs.items()},
        },
        "Image": {"form": source.form, "digest": source.digest, "entries": len(source.tree)},
        "Parts": {name.strip(): size for name, size in image.parts.items()},
        "Size": image.size,
        "MemoryMiB": image.memory,
        "Notes": list(notes),
        "Written": [str(path) for path in written],
    }


def as_text(image: Image, source: Source, written: Sequence[Path]) -> str:
    """For people: large parts first, small ones together."""
    lines = [f"{source.form} {source.digest}".strip() + f", {len(source.tree)} files and folders"]
    shown = 0
    for name, size in image.parts.items():
        is_part = name.startswith(" ")
        shown = shown + 1 if is_part else 0
        if shown <= _SHOWN:
            lines += [f"{size / 1e6:10.2f} MB  {name}"]
    lines.append(f"{image.size / 1e6:10.2f} MB  in all")
    lines += [f"PCR{number:<2} {value.hex()}" for number, value in sorted(image.pcrs.items())]
    lines.append(f"an enclave of it needs {image.memory} MiB of memory, and what the application itself uses")
    lines += [f"wrote {path}" for path in written]
    return "\n".join(lines)
