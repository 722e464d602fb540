"""The roots that a config pins, in PEM. Only the worker that provisions uses them, so only it loads what takes certificates apart."""

import base64
import binascii
import re
import textwrap
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]*)\s-----END CERTIFICATE-----")
_WRONG = "must be one or more PEM certificates that parse"


@dataclass(frozen=True, slots=True)
class PinnedRoots:
    """One or more certificates, DER. That they are certificates is not known before `read`."""

    ders: tuple[bytes, ...]

    @classmethod
    def parse(cls, text: str) -> "PinnedRoots":
        """Of PEM (RFC 7468), what stands around the certificates passed over. Raises ValueError for what is no PEM."""
        try:
            ders = tuple(base64.b64decode("".join(block.split()), validate=True) for block in _BLOCK.findall(text))
        except (binascii.Error, ValueError):
            ders = ()
        if not ders or len(ders) != text.count("BEGIN CERTIFICATE"):
            raise ValueError(f"{_WRONG}: this is not PEM")
        return cls(ders)

    def __str__(self) -> str:
        return "".join(map(_pem, self.ders))

    def read(self) -> "tuple[x509.Certificate, ...]":
        """Each read to its end: the library reads keys and extensions only when they are asked for. Raises ValueError."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.utils import CryptographyDeprecationWarning

        refused = (
            ValueError,
            UnsupportedAlgorithm,
            CryptographyDeprecationWarning,
            x509.InvalidVersion,
            x509.DuplicateExtension,
            x509.UnsupportedGeneralNameType,
        )
        try:
            with warnings.catch_warnings(action="error"):  # what the library's next release refuses is refused now
                chain = tuple(map(x509.load_der_x509_certificate, self.ders))
                for certificate in chain:
                    certificate.public_key()
                    tuple(certificate.extensions)
        except refused as error:
            raise ValueError(f"{_WRONG}: {error}") from None
        return chain


def _pem(der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
