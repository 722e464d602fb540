"""The context of a server's next handshake, which changes under those that are open: with new chains, and with new ticket keys.

A session ticket is sealed under a random key that OpenSSL makes with each context, and that nothing reads, stores or sends. So a new
context is a new ticket key, and the old one is wiped with the old context, when the last connection that began under it has ended.
A session cannot outlive its chain, and must not: a client that resumes believes the leaf of its first handshake, while evidence names
the leaf that this connection's context has.

Each process has a key of its own: what one of several workers sealed is of use at that worker alone, and a client that meets another
makes a full handshake. OpenSSL has calls for sharing keys (SSL_CTX_set_tlsext_ticket_keys and a callback for the key before); cryptography
binds neither, and hides the library's symbols. Contexts that are made before workers are forked do share their keys, but then those of
days to come lie in the memory of every worker, of other roles too: a resumption is not worth that.
"""

from collections.abc import Sequence

import trio
from OpenSSL import SSL

from runtime.net.tls_context import TlsIdentity, Version, server_context

TICKET_KEY_SECONDS = 4 * 3600.0
"""How long a ticket key is used. A client that returns later than that, or after its ticket's own end, makes a full handshake."""


class ServerContexts:
    """Gives the context for the next handshake. Connections that are open, or in their handshake, go on with the one that they have."""

    def __init__(self, identities: Sequence[TlsIdentity], *, min_version: Version = "1.2") -> None:
        self._min_version = min_version
        self.replace(identities)

    def current(self) -> SSL.Context:
        """The context for a handshake that begins now."""
        return self._context

    def replace(self, identities: Sequence[TlsIdentity]) -> None:
        """From now on these chains are served. Sessions that began under others are not resumed. Raises what `server_context` raises."""
        self._context = server_context(identities, min_version=self._min_version)
        self._identities = identities

    async def rotate(self) -> None:
        """Changes the ticket key again and again, until it is cancelled."""
        while True:
            await trio.sleep(TICKET_KEY_SECONDS)
            self.replace(self._identities)
