"""A whole system whose lease and certificates are renewed while clients come, stay and ask: nobody's request fails, and nobody is told
of a key that their connection does not have."""

import base64
import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.net.clock import utc_now
from runtime.net.endpoint import connect
from runtime.net.http import HttpClient
from runtime.net.tls import TlsStream, client_context
from runtime.protocol.binding import PUBLIC_EXPORTER_LABEL, PublicBinding, decode_binding, spki_digest
from runtime.protocol.document import parse_document
from runtime.provisioner.store import Store
from tests.scenarios.machines import free_port, local_api
from tests.scenarios.operated import PATIENCE, Operated, operated

RENEWALS = 3
STAYING, COMING = 4, 4
APP = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def config(app: int) -> str:
    return f"""
version = 1
enclave = {{ id = "renewed" }}
tls = {{ names = ["app.test"] }}

[[process]]
name = "app"
command = ["python3", "app.py", "{app}"]
ready = {{ tcp = "127.0.0.1:{app}", interval = "100ms", failures = 100 }}

[ingress]
mode = "http"
workers = 2
upstream = "tcp:127.0.0.1:{app}"
{local_api()}
"""


class Client:
    """One connection, and the leaf that it was shown."""

    def __init__(self, tls: TlsStream) -> None:
        assert tls.peer_certificate is not None
        self.leaf: x509.Certificate = tls.peer_certificate
        self._tls = tls
        self._http = HttpClient(tls, host="localhost")

    async def is_served(self) -> None:
        answer = await self._http.request("GET", "/", max_body=100)
        assert (answer.status, answer.body) == (200, b"hello")

    async def attested(self) -> PublicBinding:
        """What the evidence for this connection commits to, its exporter checked."""
        nonce = os.urandom(16)
        path = f"/.well-known/attestation?nonce={base64url(nonce)}"
        answer = await self._http.request("GET", path, headers=[("accept", "application/cbor")], max_body=1 << 16)
        assert answer.status == 200
        document = parse_document(answer.body)
        binding = decode_binding(document.user_data or b"")
        assert isinstance(binding, PublicBinding)
        assert binding.exporter == self._tls.exporter(PUBLIC_EXPORTER_LABEL, nonce, 32)
        return binding

    @property
    def key(self) -> bytes:
        return spki_digest(self.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@asynccontextmanager
async def connected(system: Operated) -> AsyncGenerator[Client]:
    roots = x509.load_pem_x509_certificates(system.layout.ca.read_bytes())
    async with await connect(system.public) as stream:
        tls = await TlsStream.connect(stream, client_context(roots, now=utc_now()), server_name="localhost")
        try:
            yield Client(tls)
        finally:
            await trio.aclose_forcefully(tls)


async def test_renewals_under_load_fail_no_request_and_evidence_names_the_key_of_its_connection(tmp_path: Path) -> None:
    app = free_port()
    served: Counter[bytes] = Counter()
    is_over = trio.Event()

    async def stay(system: Operated, *, task_status: trio.TaskStatus[None]) -> None:
        async with connected(system) as client:
            assert (await client.attested()).spki_digest == client.key
            task_status.started()
            while not is_over.is_set():
                await client.is_served()
            assert (await client.attested()).spki_digest == client.key, "its own, though others have got newer ones since"

    async def come_and_go(system: Operated) -> None:
        while not is_over.is_set():
            async with connected(system) as client:
                served[client.key] += 1
                await client.is_served()
                if served[client.key] == 1:
                    assert (await client.attested()).spki_digest == client.key
                await client.is_served()

    async with operated(tmp_path, config(app), {"app.py": APP}, renew_after_seconds=1) as system:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(STAYING):
                    await nursery.start(stay, system)
                for _ in range(COMING):
                    nursery.start_soon(come_and_go, system)
                while len(served) <= RENEWALS:
                    await trio.sleep(0.01)
                is_over.set()
        assert len(system.shown("journal", "renewal.done")) >= RENEWALS
        assert system.shown("journal", "renewal.failed", "worker.ended", "worker.refused", "provisioning.confirm_failed") == []
        assert [event["event"] for event in system.shown("state")][-1] == "ready"
        store = Store(system.layout.provisioner / "store.db")
        try:
            with store.transaction() as db:
                states = [row["state"] for row in db.execute("SELECT state FROM leases ORDER BY issued")]
        finally:
            store.close()
    assert states == [*(len(states) - 1) * ["renewed"], "live"]
