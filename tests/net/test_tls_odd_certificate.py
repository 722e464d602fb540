"""A client certificate that OpenSSL takes and the certificate library does not read ends its own connection and nothing else."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from runtime.net.tls import PrivateKey, client_context, server_context
from tests.support.certificates import make_ca
from tests.support.tls import handshake

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def of_version_seven(der: bytes) -> bytes:
    """The certificate with another version number; its signature is nobody's business before it is read."""
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    return der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06")


def showing(client: SSL.Context, der: bytes, key: PrivateKey) -> SSL.Context:
    client.use_certificate(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
    client.use_privatekey(key)
    return client


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # the other way reads it first
async def test_a_client_certificate_of_an_unknown_version_is_a_tls_error() -> None:
    ca = make_ca("ca", NOW)
    identity = ca.issue(("client",), client=True)
    server = server_context([ca.issue(("a.example",))], min_version="1.3", ask_client_certificate=True)
    odd = of_version_seven(identity.chain[0].public_bytes(Encoding.DER))
    client = showing(client_context([ca.certificate], now=NOW), odd, identity.key)
    async with await handshake(server, client) as ends:
        assert ends.reasons()[0] == "tls_certificate"
