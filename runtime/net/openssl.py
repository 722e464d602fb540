"""A server's TLS connection on a non-blocking socket, for the hub: OpenSSL called directly, into buffers that are used again.

pyOpenSSL makes the context and the connection, and does the handshake. Its `recv_into` and `send` allocate and copy a buffer, and
raise an exception for "not now", which makes up a third of the cost of a small request; so reading and writing call the same
library's functions through the same binding (`cryptography`'s, which pyOpenSSL is made of), here and nowhere else.
"""

import os
import socket
from contextlib import suppress
from typing import Any

from cryptography import x509
from OpenSSL import SSL, _util

from runtime.net.tls_context import Expected, NoCommonProtocol, TlsError, TlsIdentity

_lib: Any = _util.lib
_ffi: Any = _util.ffi

WANT_READ = -1
"""Nothing can be done until the socket has something to read."""
WANT_WRITE = -2
"""Nothing can be done until the socket takes bytes."""
RECORD_MAX = 16 * 1024
"""Bytes of what a full record carries."""
ENDED = 0
"""The peer sent close_notify."""

_DISCARD_SIZE = 64 * 1024
_DISCARD_READS = 16


class TlsBroken(Exception):
    """The connection ended without close_notify, or its bytes are no TLS. Nothing more can be read or written."""


class Buffer:
    """Memory that is read into again and again: `view` is all of it."""

    __slots__ = ("memory", "pointer", "size", "view")

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        self.size = size
        self.view = memoryview(self.memory)
        self.pointer = _ffi.from_buffer(self.memory)


class TlsSocket:
    """A server's end. One at a time reads and one writes; nothing here waits: `WANT_READ` and `WANT_WRITE` say for what to."""

    __slots__ = ("_connection", "_ssl", "is_at_end", "is_broken", "socket")

    def __init__(self, accepted: socket.socket, context: SSL.Context) -> None:
        self.socket = accepted
        self.is_at_end = self.is_broken = False
        self._connection = SSL.Connection(context, accepted)
        self._connection.set_app_data(Expected(server_name=None))
        self._connection.set_accept_state()
        self._ssl: Any = self._connection._ssl  # OpenSSL's own, which pyOpenSSL keeps and does not offer
        # Or each call would write one record and return, and one would read on for as long as a client sends what is no data.
        _lib.SSL_clear_mode(self._ssl, _lib.SSL_MODE_ENABLE_PARTIAL_WRITE | _lib.SSL_MODE_AUTO_RETRY)

    def handshake(self) -> int:
        """Goes on with the handshake; 1 when it is done. Raises `TlsError` when it failed, after the alert was sent."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return WANT_READ
        except SSL.WantWriteError:
            return WANT_WRITE
        except SSL.SysCallError as error:
            raise TlsError("tls_closed", f"the peer ended the handshake: {error.args[-1]}") from None
        except NoCommonProtocol:
            self._let_the_alert_arrive()
            raise TlsError("tls_alpn", "the client offers no application protocol that is served here") from None
        except SSL.Error as error:
            self._let_the_alert_arrive()
            raise TlsError("tls_handshake", reason(error)) from None
        return 1

    def read(self, buffer: Buffer) -> int:
        """Reads at most `buffer.size` bytes, at most one record; how many, or `ENDED`, `WANT_READ`, `WANT_WRITE`. Raises `TlsBroken`."""
        size: int = _lib.SSL_read(self._ssl, buffer.pointer, buffer.size)
        return size if size > 0 else self._why_not(size)

    def read_many(self, buffer: Buffer) -> int:
        """As `read`, and on while what comes are full records and there is room, so that bulk is sent on at once.

        What ends the connection may have come with them, and the socket never becomes readable for that: `is_at_end`, the next read tells.
        """
        end = size = self.read(buffer)
        while size == RECORD_MAX and buffer.size - end >= RECORD_MAX:
            size = _lib.SSL_read(self._ssl, buffer.pointer + end, RECORD_MAX)
            if size > 0:
                end += size
            else:
                self.is_at_end = _lib.SSL_get_error(self._ssl, size) != _lib.SSL_ERROR_WANT_READ
                _lib.ERR_clear_error()
        return end

    def pending(self) -> bool:
        """Whether there are decrypted bytes, for which the socket will never become readable."""
        return bool(_lib.SSL_pending(self._ssl))

    def write(self, data: bytes) -> int:
        """Writes `data`, which must not be empty: its size, or `WANT_*` when the socket did not take all of it now. Raises `TlsBroken`.

        After `WANT_*` the same bytes have to be given again, all of them, though some of their records may have gone.
        """
        size: int = _lib.SSL_write(self._ssl, data, len(data))
        return size if size > 0 else self._why_not(size) or WANT_WRITE

    def write_view(self, data: memoryview) -> int:
        """As `write`, of a part of a larger buffer."""
        size: int = _lib.SSL_write(self._ssl, _ffi.from_buffer(data), len(data))
        return size if size > 0 else self._why_not(size) or WANT_WRITE

    def shutdown(self) -> int:
        """Sends close_notify: 1, or `WANT_WRITE` when the socket does not take it now. The other direction stays open."""
        if not self.is_broken:
            try:
                self._connection.shutdown()
            except SSL.WantWriteError:
                return WANT_WRITE
            except SSL.Error:
                self.is_broken = True
        return 1

    def exporter(self, label: bytes, context: bytes, size: int = 32) -> bytes:
        """`size` bytes that only the two ends of this connection know (RFC 5705; RFC 8446 section 7.5)."""
        return self._connection.export_keying_material(label, size, context)

    @property
    def own_certificate(self) -> x509.Certificate | None:
        """The leaf that was served on this connection."""
        identity: TlsIdentity = self._connection.get_context().get_app_data()
        return identity.chain[0]

    @property
    def served_names(self) -> tuple[str, ...]:
        """The names that the served leaf stands for; `*` may be the first label."""
        identity: TlsIdentity = self._connection.get_context().get_app_data()
        return identity.names

    @property
    def version(self) -> str:
        """ "1.2" or "1.3"."""
        return self._connection.get_protocol_version_name().removeprefix("TLSv")

    @property
    def group(self) -> str | None:
        """The group of the key exchange by OpenSSL's name, for example "X25519MLKEM768"."""
        return self._connection.get_group_name()

    def _why_not(self, result: int) -> int:
        error: int = _lib.SSL_get_error(self._ssl, result)
        if error == _lib.SSL_ERROR_WANT_READ:
            return WANT_READ
        if error == _lib.SSL_ERROR_WANT_WRITE:
            return WANT_WRITE
        if error == _lib.SSL_ERROR_ZERO_RETURN:
            return ENDED
        self.is_broken = True
        _lib.ERR_clear_error()  # or the next connection would be blamed for it
        raise TlsBroken("the connection ended within its data" if error == _lib.SSL_ERROR_SYSCALL else "bytes that are no TLS")

    def _let_the_alert_arrive(self) -> None:
        """Takes what has come in off the socket: closing over unread bytes resets the connection, which may overtake the alert."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            for _ in range(_DISCARD_READS):
                if not os.read(self.socket.fileno(), _DISCARD_SIZE):
                    return


def reason(error: SSL.Error) -> str:
    """OpenSSL's own words for an error, never bytes of the peer's."""
    queue = error.args[0] if error.args else ()
    return "; ".join(entry[-1] for entry in queue if entry) or "unknown TLS error"
