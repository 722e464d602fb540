"""Output that nobody wants: that of a command which only says by its exit code whether a process is ready."""

from runtime.protocol.link_values import Stream


class _Discarded:
    def feed(self, _data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def discard(_process: str, _stream: Stream) -> _Discarded:
    """Opens an output that takes bytes and forgets them."""
    return _Discarded()
