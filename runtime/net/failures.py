"""The errors that end one connection and nothing else, as far as they are known without a protocol's own library."""

import trio

from runtime.protocol.errors import ProtocolError

STREAM_ERRORS: tuple[type[Exception], ...] = (
    OSError,  # what the kernel says of a socket, of a name or of a descriptor that could not be had for this connection
    trio.BrokenResourceError,  # reset, cut off, or TLS records that do not hold
    trio.ClosedResourceError,  # closed under its reader when the other half of a connection ended
    trio.TooSlowError,  # a deadline of this connection
    ProtocolError,  # a peer's fault in any protocol of ours, TLS handshakes (net/tls.py) included
)
"""For those that speak no HTTP. PID 1 is one of them, and does not load h11 for the sake of a name."""
