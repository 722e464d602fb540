"""Files that a user names on the command line, read with a bound; what is wrong with one is said in one line."""

import mmap
from pathlib import Path

from cryptography import x509

from runtime.verifier.reference import ReferenceInvalid, ReferenceValues, parse_reference
from runtime.verifier.roots import aws_root

FILE_MAX = 1 << 20
"""Bytes read of any file."""


class Unusable(Exception):
    """The user gave a file or a value that cannot be used; the message is one line."""


def read_file(name: str, *, most: int = FILE_MAX) -> bytes:
    """At most so many bytes of a file."""
    try:
        with Path(name).open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise Unusable(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise Unusable(f"{name!a}: {error}") from None


def map_file(path: Path) -> memoryview:
    """A file of any size, without reading it into memory as a whole: the view holds its mapping for as long as it lives."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b"")
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise Unusable(f"{path}: {error}") from None


def read_certificates(name: str) -> tuple[x509.Certificate, ...]:
    """The PEM certificates of a file, at least one."""
    try:
        return tuple(x509.load_pem_x509_certificates(read_file(name)))
    except (ValueError, x509.InvalidVersion):
        raise Unusable(f"{name}: no PEM certificate that can be read") from None


def read_roots(name: str | None) -> tuple[x509.Certificate, ...]:
    """Roots of attestation: AWS's, or those of a file in its place."""
    return (aws_root(),) if name is None or name == "aws" else read_certificates(name)


def read_reference(name: str) -> ReferenceValues:
    """Reference values: TOML, or what nitro-cli printed about an image."""
    try:
        return parse_reference(read_file(name).decode(), source=Path(name).name)
    except UnicodeDecodeError:
        raise Unusable(f"{name}: not text") from None
    except ReferenceInvalid as error:
        raise Unusable(str(error)) from None
