"""Layers as they travel: perhaps compressed, with a digest of the bytes as they are and one of what is in them. Bombs are refused.

The bytes come from whoever made the image: nothing is inflated further than it is asked for, whatever a header claims.
"""

import hashlib
import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from runtime.image.contents import BadImage
from runtime.image.spool import Spool

UNPACKED_MAX = 10 << 30
"""Bytes of one archive when it is unpacked."""
RATIO_MAX = 200
RATIO_FROM = 64 << 20
"""So many times its size a layer may grow to, once it has more than this many bytes. Real ones grow three to five times."""

_CHUNK = 1 << 20
_ZSTD_CHUNK = 1 << 10  # its decoder takes no limit: a kilobyte is 32 MiB at the most
_XZ_MEMORY = 128 << 20
_ZSTD_WINDOW = 128 << 20
_GZIP_BITS = 31  # zlib's way to say gzip
_GZIP_MAGIC, _ZSTD_MAGIC, _XZ_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """Where in the spool it is, the digest of what came, and of what was in it; both SHA-256."""

    offset: int
    size: int
    packed_digest: str
    digest: str


def unpack(parts: Iterable[bytes], spool: Spool, name: str, most: int = UNPACKED_MAX) -> Unpacked:
    """Appends what is in `parts` to the spool, `most` bytes of it. `name` is for errors. Raises `BadImage`."""
    packed = unpacked = 0
    packed_digest, digest = hashlib.sha256(), hashlib.sha256()

    def counted() -> Iterator[bytes]:
        nonlocal packed
        for part in parts:
            packed += len(part)
            packed_digest.update(part)
            yield part

    offset = spool.file.seek(0, 2)
    for part in _inflated(counted(), name):
        unpacked += len(part)
        if unpacked > most or (unpacked > RATIO_FROM and unpacked > packed * RATIO_MAX):
            raise BadImage(f"{name}: {packed} bytes that grow to more than {unpacked}: refused as a bomb")
        digest.update(part)
        spool.file.seek(0, 2)  # `parts` may be read from the very same file
        spool.file.write(part)
    return Unpacked(offset=offset, size=unpacked, packed_digest=packed_digest.hexdigest(), digest=digest.hexdigest())


def _inflated(parts: Iterator[bytes], name: str) -> Iterator[bytes]:
    head = b""
    for part in parts:
        head += part
        if len(head) >= len(_XZ_MAGIC):
            break
    parts = chain((head,), parts)
    try:
        if head.startswith(_GZIP_MAGIC):
            yield from _gunzip(parts)
        elif head.startswith(_ZSTD_MAGIC):
            yield from _unzstd(parts)
        elif head.startswith(_XZ_MAGIC):
            yield from _unxz(parts)
        else:
            yield from parts
    except (zlib.error, lzma.LZMAError, EOFError, MemoryError) as error:
        raise BadImage(f"{name}: its compression is damaged or cut off: {error}") from None


def _gunzip(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Any number of members, as parallel compressors write them; zeros may follow."""
    decoder = zlib.decompressobj(_GZIP_BITS)
    for part in parts:
        data = part
        while data:
            if decoder.eof:
                data = data.lstrip(b"\0")
                decoder = zlib.decompressobj(_GZIP_BITS) if data else decoder
                continue
            if out := decoder.decompress(data, _CHUNK):
                yield out
            data = decoder.unused_data or decoder.unconsumed_tail
    while not decoder.eof and (out := decoder.decompress(b"", _CHUNK)):
        yield out
    if not decoder.eof:
        raise EOFError("the end is missing")


def _unxz(parts: Iterable[bytes]) -> Iterator[bytes]:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    for part in parts:
        data = part
        while data or not (decoder.eof or decoder.needs_input):
            if decoder.eof:
                data = data.lstrip(b"\0")
                decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY) if data else decoder
                continue
            if out := decoder.decompress(data, _CHUNK):
                yield out
            data = decoder.unused_data  # nothing before the end: the decoder keeps what it has not used
    if not decoder.eof:
        raise EOFError("the end is missing")


def _unzstd(parts: Iterable[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise BadImage("this image has zstd layers: install the package zstandard, or write it with gzip layers") from None
    inflater = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    decoder = inflater.decompressobj()
    try:
        for part in parts:
            for start in range(0, len(part), _ZSTD_CHUNK):
                data = part[start : start + _ZSTD_CHUNK]
                while data:
                    decoder = inflater.decompressobj() if decoder.eof else decoder
                    yield decoder.decompress(data)
                    data = decoder.unused_data if decoder.eof else b""
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if not decoder.eof:
        raise EOFError("the end is missing")
