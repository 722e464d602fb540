"""A chain is changed while clients come and go: no request fails, open connections go on, and evidence names the key that was served."""

from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.net.clock import utc_now
from runtime.net.tls import TlsStream
from runtime.net.tls_rotation import ServerContexts
from runtime.protocol.binding import PublicBinding, decode_binding, spki_digest
from tests.enclave.traffic.attesters import document_fields
from tests.enclave.traffic.harness import GET, HOST, App, Gate, Peer, ingress
from tests.support.certificates import make_ca

CLIENTS = 8
SECONDS = 60
CA = make_ca("swaps", utc_now())
CHAINS = [CA.issue((HOST,)) for _ in range(6)]


def leaf_of(client: Peer) -> x509.Certificate:
    assert isinstance(client.stream, TlsStream)
    assert client.stream.peer_certificate is not None
    return client.stream.peer_certificate


async def ask(client: Peer) -> None:
    await client.send(GET)
    status, _, body = await client.answer()
    assert (status, body) == (200, b"ok")


async def test_chains_change_under_load_without_a_failed_request(tmp_path: Path) -> None:
    contexts = ServerContexts(CHAINS[:1])
    served: set[x509.Certificate] = set()
    is_over = trio.Event()

    async def come_and_go(gate: Gate) -> None:
        while not is_over.is_set():
            async with gate.client() as client:
                served.add(leaf_of(client))
                await ask(client)
                await ask(client)

    async def stay(gate: Gate, *, task_status: trio.TaskStatus[None]) -> None:
        async with gate.client() as client:
            task_status.started()
            while not is_over.is_set():
                await ask(client)
            assert leaf_of(client) == CHAINS[0].chain[0]

    async with ingress(tmp_path, App()) as gate:
        gate.context = contexts.current()
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(come_and_go, gate)
                    await nursery.start(stay, gate)
                for chain in CHAINS:
                    contexts.replace([chain])
                    gate.context = contexts.current()
                    while chain.chain[0] not in served:
                        await trio.sleep(0.001)
                is_over.set()
        requests = gate.requests
        assert len(requests) > CLIENTS
        assert {fields["status"] for fields in requests} == {200}
        assert [name for name, _ in gate.events if name != "http_request"] == []
    assert served == {chain.chain[0] for chain in CHAINS}


async def test_evidence_names_the_key_that_this_connection_was_served(tmp_path: Path) -> None:
    """Also the evidence without a nonce, which is kept for a while and handed out again."""
    contexts = ServerContexts(CHAINS[:1])
    async with ingress(tmp_path, App()) as gate:
        gate.context = contexts.current()
        async with gate.client() as before:
            for _ in range(2):
                assert await key_in_evidence(before) == key_of(CHAINS[0].chain[0])
            contexts.replace(CHAINS[1:2])
            gate.context = contexts.current()
            async with gate.client() as after:
                for _ in range(2):
                    assert await key_in_evidence(after) == key_of(CHAINS[1].chain[0])
                    assert await key_in_evidence(before) == key_of(CHAINS[0].chain[0])


async def key_in_evidence(client: Peer) -> bytes:
    await client.send(b"GET /.well-known/attestation HTTP/1.1\r\nHost: %b\r\nAccept: application/cbor\r\n\r\n" % HOST.encode())
    status, _, document = await client.answer()
    assert status == 200
    binding = decode_binding(document_fields(document).user_data or b"")
    assert isinstance(binding, PublicBinding)
    return binding.spki_digest


def key_of(leaf: x509.Certificate) -> bytes:
    return spki_digest(leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
