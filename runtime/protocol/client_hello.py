"""Reads the first message of a TLS client, as it arrives: which name it asks for, before a byte of it goes on (RFC 8446 section 4.1.2).

Runs inside the enclave; pure. The bytes are a stranger's, and so is whoever reads them next: what two readers could read differently
is refused, and what was read is passed on as it came. Handshake messages may be cut anywhere, by TCP and by records.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from runtime.protocol.buffer import Cursor
from runtime.protocol.errors import Malformed
from runtime.protocol.host_name import wire_name

HelloFault: TypeAlias = Literal[
    "not_tls", "not_client_hello", "tls_version", "record_size", "hello_too_large", "hello_malformed", "extension_twice",
    "two_names", "bad_name", "truncated", "trailing_bytes",
]  # fmt: skip
HELLO_FAULTS: tuple[HelloFault, ...] = get_args(HelloFault)

HELLO_MAX = 16 * 1024
"""Bytes of a ClientHello; one with a post-quantum key share takes about 1800."""
RECEIVED_MAX = 32 * 1024
"""Bytes of the records that a hello may come in: those of a few bytes each have larger heads than bodies."""
RECORD_MAX = 1 << 14

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_VERSIONS = (0x0301, 0x0302, 0x0303)
_SERVER_NAME, _ALPN, _PRE_SHARED_KEY = 0, 16, 41
_ENCRYPTED = frozenset((0xFE0D, 0xFFCE, *range(0xFE08, 0xFE0D)))
"""encrypted_client_hello (RFC 9849) and what its drafts used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a client asks for. `server_name` is normalised, None where none is given; `is_encrypted` means that the name that counts
    may be another, which nobody on the way can read. `protocols` are those of ALPN, as they came."""

    server_name: str | None
    protocols: tuple[bytes, ...]
    is_encrypted: bool


class ClientHelloReader:
    """Collects a stream's first bytes until they are a ClientHello. One fault ends it."""

    __slots__ = ("_message", "_offset", "_received")

    def __init__(self) -> None:
        self._received = bytearray()
        self._message = bytearray()
        self._offset = 0

    @property
    def received(self) -> bytes:
        """Every byte so far, the hello and what may have come after it: to be passed on unchanged."""
        return bytes(self._received)

    def receive_data(self, data_untrusted: bytes) -> ClientHello | None:
        """The hello, once it is complete; None while more must come. Raises `Malformed` with one of `HelloFault` at the first byte
        that no hello has, at the latest at the first behind `RECEIVED_MAX`; how the bytes were cut makes no difference."""
        self._received += data_untrusted
        while (body := self._next_record()) is not None:
            self._message += body
            if (hello := self._hello()) is not None:
                return hello
        return None

    def finish(self) -> None:
        """The stream has ended without a hello: `Malformed` with reason `truncated`."""
        raise Malformed(f"the stream ended {len(self._received)} bytes into a ClientHello", "truncated")

    def _next_record(self) -> bytes | None:
        """The body of the next record (RFC 8446 section 5.1), judged as soon as each byte of its head is there."""
        head = self._received[self._offset : self._offset + 5]
        if head and head[0] != _HANDSHAKE:
            raise Malformed(f"record type {head[0]}, not a handshake", "not_tls" if self._offset == 0 else "not_client_hello")
        if len(head) >= 2 and head[1] != 3:
            raise Malformed(f"record version {head[1]}", "not_tls" if self._offset == 0 else "tls_version")
        if len(head) < 5:
            return None
        if int.from_bytes(head[1:3], "big") not in _VERSIONS:
            raise Malformed(f"record version {head[1:3].hex()}", "tls_version")
        size = int.from_bytes(head[3:], "big")
        if not 1 <= size <= RECORD_MAX:
            raise Malformed(f"a record of {size} bytes", "record_size")
        end = self._offset + 5 + size
        if end > RECEIVED_MAX:
            raise Malformed(f"{RECEIVED_MAX} bytes of records and no ClientHello", "hello_too_large")
        if not self._message and len(self._received) > self._offset + 5 and self._received[self._offset + 5] != _CLIENT_HELLO:
            raise Malformed("another message than a ClientHello", "not_client_hello")
        if len(self._received) < end:
            return None
        body = bytes(self._received[self._offset + 5 : end])
        self._offset = end
        return body

    def _hello(self) -> ClientHello | None:
        if len(self._message) < 4:
            return None
        size = int.from_bytes(self._message[1:4], "big")
        if size > HELLO_MAX:
            raise Malformed(f"a ClientHello of {size} bytes, {HELLO_MAX} allowed", "hello_too_large")
        if len(self._message) < 4 + size:
            return None
        if len(self._message) > 4 + size:
            raise Malformed("something in the ClientHello's last record follows it", "trailing_bytes")
        return parse_client_hello(bytes(self._message[4:]))


def parse_client_hello(body_untrusted: bytes) -> ClientHello:
    """The hello in the body of its handshake message. Raises `Malformed` with one of `HelloFault`."""
    cursor = Cursor(body_untrusted)
    version = cursor.uint(2)
    if version not in _VERSIONS:
        raise Malformed(f"legacy_version {version:04x}", "tls_version")
    cursor.take(32)
    if len(_vector(cursor, 1)) > 32:
        raise Malformed("a session id of over 32 bytes", "hello_malformed")
    suites = _vector(cursor, 2)
    if not suites or len(suites) % 2:
        raise Malformed(f"{len(suites)} bytes of cipher suites", "hello_malformed")
    if 0 not in _vector(cursor, 1):
        raise Malformed("no null compression", "hello_malformed")
    extensions = _extensions(cursor) if cursor.remaining else {}
    cursor.finish()
    return ClientHello(
        server_name=_server_name(extensions[_SERVER_NAME]) if _SERVER_NAME in extensions else None,
        protocols=_protocols(extensions[_ALPN]) if _ALPN in extensions else (),
        is_encrypted=not _ENCRYPTED.isdisjoint(extensions),
    )


def _extensions(cursor: Cursor) -> dict[int, bytes]:
    block = Cursor(_vector(cursor, 2))
    found: dict[int, bytes] = {}
    while block.remaining:
        kind = block.uint(2)
        if kind in found:
            raise Malformed(f"extension {kind} twice (RFC 8446 section 4.2)", "extension_twice")
        if _PRE_SHARED_KEY in found:
            raise Malformed("pre_shared_key is not the last extension (RFC 8446 section 4.2.11)", "hello_malformed")
        found[kind] = _vector(block, 2)
    return found


def _server_name(data: bytes) -> str:
    """The one name of the extension (RFC 6066 section 3): no other type is defined, and a list of two is a riddle."""
    cursor = Cursor(data)
    entries = Cursor(_vector(cursor, 2))
    cursor.finish()
    kind, name = entries.uint(1), _vector(entries, 2)
    if entries.remaining:
        raise Malformed("more than one name", "two_names")
    if kind != 0:
        raise Malformed(f"a name of type {kind}", "bad_name")
    if name.endswith(b"."):
        raise Malformed("a name with a closing dot", "bad_name")
    try:
        return wire_name(name.decode("ascii"))
    except (UnicodeDecodeError, Malformed):
        raise Malformed(f"{name!r:.80} is no host name", "bad_name") from None


def _protocols(data: bytes) -> tuple[bytes, ...]:
    """The names of ALPN (RFC 7301 section 3.1)."""
    cursor = Cursor(data)
    entries = Cursor(_vector(cursor, 2))
    cursor.finish()
    found = []
    while entries.remaining:
        found.append(_vector(entries, 1))
    if not found or b"" in found:
        raise Malformed("an empty protocol, or none", "hello_malformed")
    return tuple(found)


def _vector(cursor: Cursor, size: int) -> bytes:
    return cursor.take(cursor.uint(size))
