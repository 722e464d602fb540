"""Where contents wait until they are copied into an image: one open file without a name, so that nothing of it can be left behind."""

import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runtime.image.contents import BadImage, Body, shown

_CHUNK = 1 << 20


@dataclass(slots=True)
class Spool:
    """An open file that holds the uncompressed layers one after the other."""

    file: BinaryIO

    def read(self, body: Body) -> Iterator[bytes]:
        """The content of a body in parts."""
        if body.data is not None:
            yield body.data
        elif body.path is not None:
            with open_file(body.path) as file:
                yield from _parts(file, body.size)
        else:
            yield from _parts(Window(self.file, body.offset, body.size), body.size)  # which may be written to meanwhile


def open_spool(folder: Path) -> Spool:
    """A new one, on the disk of `folder`, gone when it is closed. Raises OSError."""
    return Spool(tempfile.TemporaryFile(dir=folder))


def open_file(path: str) -> BinaryIO:
    """A regular file of this machine. Raises `BadImage`, also for a link, which may have come since the folder was listed."""
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise BadImage(f"{shown(os.fsencode(path))}: {error.strerror}") from None


def _parts(file: BinaryIO | io.RawIOBase, left: int) -> Iterator[bytes]:
    while left and (part := file.read(min(left, _CHUNK))):
        left -= len(part)
        yield part


class Window(io.RawIOBase):
    """A part of a file as a file of its own, read only."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        """As of a file."""
        return True

    def seekable(self) -> bool:
        """As of a file."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of a raw file."""
        view = memoryview(buffer)
        self._file.seek(self._offset + self._at)
        data = self._file.read(min(len(view), max(0, self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """As of a file."""
        return self._at
