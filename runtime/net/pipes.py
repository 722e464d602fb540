"""Pipes through which bytes move from socket to socket inside the kernel (splice(2)), lent for as long as there are bytes in them."""

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

SIZE = 256 * 1024
"""Bytes that a pipe holds, where the kernel allows so much."""

_KEPT = 16


@dataclass(frozen=True, slots=True)
class Pipe:
    """The descriptors of its two ends, non-blocking."""

    out: int
    into: int

    def close(self) -> None:
        """Whatever is in it is lost."""
        os.close(self.out)
        os.close(self.into)


class Pipes:
    """Lends at most `most` pipes at once; the borrower gives each back when it is empty, or closes it and says so."""

    def __init__(self, *, most: int = 128) -> None:
        self._left = most
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe; None when there is none to be had, and bytes have to go another way."""
        if self._idle:
            return self._idle.pop()
        if not self._left:
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:  # no descriptors: relaying without is slower, and works
            return None
        with suppress(OSError):  # what one user may have of pipes is limited, see pipe(7): then it is a small one
            fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, SIZE)
        self._left -= 1
        return pipe

    def give(self, pipe: Pipe, *, is_empty: bool = True) -> None:
        """Takes a pipe back. One that is not empty is closed: no byte of one connection may come to another."""
        if is_empty and len(self._idle) < _KEPT:
            self._idle.append(pipe)
        else:
            pipe.close()
            self._left += 1

    def close(self) -> None:
        """Closes those that are not lent."""
        while self._idle:
            self._idle.pop().close()
            self._left += 1
