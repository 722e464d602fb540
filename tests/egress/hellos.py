"""ClientHellos built from their parts, right and wrong ones, and real ones as OpenSSL writes them."""

import ssl
import struct
from contextlib import suppress

SNI, ALPN, VERSIONS, PADDING, EARLY_DATA, PSK, ECH = 0, 16, 43, 21, 42, 41, 0xFE0D


def vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes = b"") -> bytes:
    return struct.pack("!H", kind) + vector(data, 2)


def sni(*names: bytes, kind: int = 0) -> bytes:
    return extension(SNI, vector(b"".join(bytes([kind]) + vector(name, 2) for name in names), 2))


def alpn(*names: bytes) -> bytes:
    return extension(ALPN, vector(b"".join(vector(name, 1) for name in names), 2))


TLS13 = extension(VERSIONS, b"\2\3\4")
NAME = b"api.example.com"


def body(
    *extensions: bytes,
    version: int = 0x0303,
    session: bytes = bytes(32),
    suites: bytes = b"\x13\x01\x13\x02",
    compression: bytes = b"\0",
    block: bytes | None = None,
) -> bytes:
    """The body of a ClientHello; `block` in place of the extensions, b"" for none at all."""
    if block is None:
        block = vector(b"".join(extensions), 2)
    return version.to_bytes(2, "big") + bytes(range(32)) + vector(session, 1) + vector(suites, 2) + vector(compression, 1) + block


def message(content: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(content, 3)


def record(content: bytes, kind: int = 22, version: int = 0x0301) -> bytes:
    return bytes([kind]) + version.to_bytes(2, "big") + vector(content, 2)


def records(content: bytes, size: int) -> bytes:
    """`content` in records of at most `size` bytes."""
    return b"".join(record(content[index : index + size]) for index in range(0, len(content), size))


def hello(*extensions: bytes) -> bytes:
    """A whole hello in one record."""
    return record(message(body(*extensions)))


def real(name: str | None, *, protocols: tuple[str, ...] = (), version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()
