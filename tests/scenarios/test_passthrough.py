"""Mode passthrough from end to end: clients' TLS ends in the customer process, which brought its own key; the enclave holds none."""

import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtime.net.clock import utc_now
from tests.scenarios.machines import free_port
from tests.scenarios.programs import serving
from tests.support.certificates import make_ca

SERVER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("own.pem")
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        connection, _ = server.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                while data := tls.recv(4096):
                    tls.sendall(data.upper())
        except OSError:
            connection.close()
"""


def write_config(folder: Path) -> Path:
    """A process that ends TLS itself, and no names in the config: the provisioner is asked for no certificate."""
    port, api = free_port(), free_port()
    (folder / "server.py").write_text(SERVER)
    config = folder / "own.toml"
    config.write_text(f"""
version = 1

[enclave]
id = "own-tls"

[[process]]
name = "server"
command = ["python3", "server.py", "{port}"]
user = "1000:1000"
ready = {{ tcp = "127.0.0.1:{port}", interval = "100ms" }}

[ingress]
mode = "passthrough"
upstream = "tcp:127.0.0.1:{port}"
workers = 1

[attestation]
listen = "tcp:127.0.0.1:{api}"
""")
    return config


def upper(url: str, context: ssl.SSLContext, data: bytes) -> bytes:
    """What the process makes of `data`, over TLS with whoever proves to be own.test."""
    host, _, port = url.removeprefix("https://").partition(":")
    answer = b""
    with (
        socket.create_connection((host, int(port)), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="own.test") as tls,
    ):
        tls.sendall(data)
        while len(answer) < len(data):
            answer += tls.recv(4096)
    return answer


def test_a_process_that_ends_tls_itself_is_reached_with_its_own_certificate(tmp_path: Path) -> None:
    ca = make_ca("the customer's own", utc_now())
    identity = ca.issue(("own.test",))
    pem = [identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
    pem += [certificate.public_bytes(Encoding.PEM) for certificate in identity.chain]
    (tmp_path / "own.pem").write_bytes(b"".join(pem))
    own = ssl.create_default_context(cadata=ca.certificate.public_bytes(Encoding.PEM).decode())
    with serving(write_config(tmp_path), tmp_path / "state") as served:
        assert upper(served.ready["url"], own, b"hello") == b"HELLO"
        assert upper(served.ready["url"], own, bytes(range(97, 123)) * 20_000) == bytes(range(65, 91)) * 20_000
        with pytest.raises(ssl.SSLCertVerificationError):
            upper(served.ready["url"], ssl.create_default_context(cafile=served.ready["ca"]), b"")
        assert "clients' TLS goes through to the customer process" in "".join(served.said)
        events = (served.layout.parent / "events.jsonl").read_text()
        assert "traffic.tcp_connection" in events
        assert "handshake_failed" not in events
        assert served.interrupt() == 0
