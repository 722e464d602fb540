"""Takes the place of Python's `ssl` in the bundle. trio names it when it is imported; all TLS of the runtime is pyOpenSSL's.

Python's own would bring a second OpenSSL into every enclave: 5.8 MB, and one more library to follow for its security. Whoever tries to
make anything of this one gets an error; the exceptions are there because `except` clauses name them, and nothing raises them.
"""

from typing import Never

OP_IGNORE_UNEXPECTED_EOF = 0


class SSLError(OSError):
    """Never raised."""


class CertificateError(SSLError, ValueError):
    """Never raised."""


class SSLEOFError(SSLError):
    """Never raised."""


class SSLSyscallError(SSLError):
    """Never raised."""


class SSLWantReadError(SSLError):
    """Never raised."""


class _Missing:
    def __init__(self, *_arguments: object, **_named: object) -> None:
        create_default_context()


class SSLContext(_Missing):
    """Cannot be made."""


class SSLObject(_Missing):
    """Cannot be made."""


class MemoryBIO(_Missing):
    """Cannot be made."""


def create_default_context(*_arguments: object, **_named: object) -> Never:
    """Raises RuntimeError."""
    raise RuntimeError("this runtime has no ssl module: its TLS is pyOpenSSL's")
