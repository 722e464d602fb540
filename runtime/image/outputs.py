"""Results that are there as a whole or not at all: written beside their place, and moved there when everything is done."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_MODE = 0o644


@dataclass(slots=True)
class Outputs:
    """Files on their way, by where they will be."""

    _pending: list[tuple[Path, Path]] = field(default_factory=list)

    def write(self, path: Path, parts: Iterable[bytes | memoryview], mode: int = _MODE) -> None:
        """Writes a file that will be at `path`. Raises OSError."""
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        self._pending.append((Path(name), path))
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)

    def place(self) -> None:
        """Moves all of them to where they belong. Raises OSError, before the first is moved where a folder is in the place of any."""
        for _, path in self._pending:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        while self._pending:
            pending, path = self._pending[0]
            pending.replace(path)
            del self._pending[0]

    def discard(self) -> None:
        """Removes what was not placed."""
        for pending, _ in self._pending:
            with suppress(OSError):
                pending.unlink()


@contextmanager
def all_or_nothing() -> Iterator[Outputs]:
    """Places what is written in it when it ends well. Raises OSError."""
    outputs = Outputs()
    try:
        yield outputs
        outputs.place()
    finally:
        outputs.discard()
