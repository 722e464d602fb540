"""Evidence on the public port, asked for over TLS as a client would."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from trio.testing import MockClock

from runtime.enclave.traffic.ingress import IngressLimits
from runtime.enclave.traffic.public_evidence import EvidenceLimits, PublicEvidence
from runtime.net.http import Request, Response
from runtime.net.tls import TlsStream, server_context
from runtime.protocol.binding import PUBLIC_EXPORTER_LABEL, PublicBinding, decode_binding, spki_digest
from tests.enclave.traffic.attesters import Asked, ScriptedAttester, document_fields
from tests.enclave.traffic.harness import CONFIG_DIGEST, HOST, App, Peer, identity, ingress

PATH = "/.well-known/attestation"
NONCE = bytes(range(240, 256)) * 2


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


async def ask(client: Peer, query: str = "", *, method: str = "GET", target: str = PATH, fields: str = "") -> Response:
    await client.send(f"{method} {target}{query} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n".encode())
    if method == "HEAD":
        head = await client.until(b"\r\n\r\n")
        return Response(
            int(head[9:12]), (("content-length", head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0].decode()),)
        )
    status, headers, body = await client.answer()
    return Response(status, tuple(headers.items()), body)


def fields_of(response: Response) -> Asked:
    assert (response.status, response.header("content-type")) == (200, "application/json")
    document = json.loads(response.body)
    assert list(document) == ["attestation_doc"]
    return document_fields(base64.b64decode(document["attestation_doc"], validate=True))


def code_of(response: Response) -> str:
    assert response.header("content-type") == "application/problem+json"
    return str(json.loads(response.body)["code"])


def leaf_digest(client: Peer) -> bytes:
    """Of the leaf that the client itself was shown."""
    assert isinstance(client.stream, TlsStream)
    assert client.stream.peer_certificate is not None
    return spki_digest(client.stream.peer_certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


async def test_evidence_is_bound_to_the_nonce_the_leaf_the_connection_and_the_config(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        response = await ask(client, f"?nonce={b64url(NONCE)}")
        assert response.header("cache-control") == "no-store"
        fields = fields_of(response)
        assert (fields.nonce, fields.public_key) == (NONCE, None)
        assert isinstance(client.stream, TlsStream)
        assert decode_binding(fields.user_data or b"") == PublicBinding(
            spki_digest=leaf_digest(client),
            exporter=client.stream.exporter(PUBLIC_EXPORTER_LABEL, NONCE, 32),
            config_digest=CONFIG_DIGEST,
        )
        assert gate.upstreams == []


async def test_evidence_of_one_connection_is_not_that_of_another(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as one, gate.client() as other:
        exporters = set()
        for client in (one, other):
            for nonce in (NONCE, NONCE[::-1]):
                binding = decode_binding(fields_of(await ask(client, f"?nonce={b64url(nonce)}")).user_data or b"")
                assert isinstance(binding, PublicBinding)
                exporters.add(binding.exporter)
        assert len(exporters) == 4


async def test_evidence_names_the_leaf_of_its_own_connection_when_certificates_change(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as old:
        gate.context = server_context([identity("b.example")])
        async with gate.client() as new:
            assert leaf_digest(old) != leaf_digest(new)
            for client in (old, new, old):
                for query in ("", f"?nonce={b64url(NONCE)}"):
                    binding = decode_binding(fields_of(await ask(client, query)).user_data or b"")
                    assert isinstance(binding, PublicBinding)
                    assert binding.spki_digest == leaf_digest(client)


@pytest.mark.parametrize("target", [PATH, f"https://a.example{PATH}"])
async def test_no_request_on_the_path_reaches_the_application(tmp_path: Path, target: str) -> None:
    app = App()
    async with ingress(tmp_path, app) as gate, gate.client() as client:
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
            await ask(client, method=method, target=target)
        assert gate.upstreams == []
        assert (await ask(client, "/more")).body == b"ok"
    assert app.requests == [(f"GET {PATH}/more".encode(), b"")]


async def test_evidence_is_given_before_the_application_is_ready(tmp_path: Path) -> None:
    async with ingress(tmp_path, None) as gate, gate.client() as client:
        gate.readiness[0] = False
        assert fields_of(await ask(client, f"?nonce={b64url(NONCE)}")).nonce == NONCE


async def test_the_document_itself_is_given_to_who_prefers_it(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        response = await ask(client, f"?nonce={b64url(NONCE)}", fields="Accept: application/cbor\r\n")
        assert response.header("content-type") == "application/cbor"
        assert document_fields(response.body).nonce == NONCE
        assert fields_of(await ask(client, fields="Accept: */*, application/cbor;q=0\r\n")).nonce is None


async def test_head_tells_how_long_evidence_would_be(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        head = await ask(client, method="HEAD")
        body = (await ask(client)).body
        assert (head.status, head.header("content-length")) == (200, str(len(body)))


@pytest.mark.parametrize("size", [16, 17, 18, 32, 63, 64])
async def test_a_nonce_may_be_padded_escaped_or_neither(tmp_path: Path, size: int) -> None:
    nonce = (NONCE * 2)[:size]
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        for text in (b64url(nonce), b64url(nonce).rstrip("="), quote(b64url(nonce), safe="")):
            assert fields_of(await ask(client, f"?a=b&nonce={text}&c")).nonce == nonce


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?nonce=", "bad_nonce"),
        (f"?nonce={b64url(bytes(15))}", "bad_nonce"),
        (f"?nonce={b64url(bytes(65))}", "bad_nonce"),
        (f"?nonce={'/' * 44}", "bad_nonce"),
        (f"?nonce={'%2B' * 44}", "bad_nonce"),
        (f"?nonce={'+' * 44}", "bad_nonce"),
        (f"?nonce={'A' * 45}", "bad_nonce"),
        (f"?nonce={'A' * 22}=", "bad_nonce"),
        (f"?nonce={'A' * 21}B", "bad_nonce"),
        (f"?nonce={'%C3%A9' * 22}", "bad_nonce"),
        (f"?nonce={b64url(NONCE)}&nonce={b64url(NONCE)}", "duplicate_nonce"),
        (f"?nonce={b64url(NONCE)}&%6eonce=", "duplicate_nonce"),
        ("?" + "&".join(["a=b"] * 17), "bad_query"),
    ],
)
async def test_a_nonce_that_is_none_is_refused_before_the_device_is_touched(tmp_path: Path, query: str, code: str) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        response = await ask(client, query)
        assert (response.status, code_of(response)) == (400, code)
        assert gate.attester.asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_another_method_is_told_the_right_ones(tmp_path: Path, method: str) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        response = await ask(client, method=method)
        assert (response.status, response.header("allow"), code_of(response)) == (405, "GET, HEAD", "method_not_allowed")


async def test_a_body_on_the_path_is_not_read_and_ends_the_connection(tmp_path: Path) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        response = await ask(client, fields="Content-Length: 10\r\n")
        assert (response.status, response.header("connection")) == (200, "close")
        assert await client.to_end() == b""


async def test_without_a_nonce_one_document_serves_for_a_while_and_names_no_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with ingress(tmp_path, App()) as gate:
        documents = set()
        for _ in range(3):
            async with gate.client() as client:
                response = await ask(client)
                assert response.header("cache-control") == "public, max-age=30"
                documents.add(response.body)
                fields = fields_of(response)
                assert fields.nonce is None
                assert decode_binding(fields.user_data or b"") == PublicBinding(
                    spki_digest=leaf_digest(client), exporter=None, config_digest=CONFIG_DIGEST
                )
        assert len(documents) == len(gate.attester.asked) == 1
        await trio.sleep(31)
        async with gate.client() as client:
            assert (await ask(client)).body not in documents
        assert len(gate.attester.asked) == 2


class FakeConnection:
    """What evidence asks of a connection, without one."""

    own_certificate = identity(HOST).chain[0]

    def exporter(self, label: bytes, context: bytes, size: int = 32) -> bytes:
        return bytes(size)


async def gather(evidence: PublicEvidence, query: str, clients: list[str]) -> list[Response]:
    """The answers to requests that are made at the same time."""
    answers: list[Response] = []

    async def one(client: str) -> None:
        request = Request(method="GET", path=PATH, query=query, headers=(), body=b"")
        answers.append(await evidence.answer(request, client=client, connection=FakeConnection()))

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(one, client)
    return answers


def many(count: int) -> list[str]:
    return [f"10.0.{number // 250}.{number % 250}" for number in range(count)]


async def test_who_comes_while_a_document_is_made_waits_for_it(autojump_clock: MockClock) -> None:
    attester = ScriptedAttester(takes=0.03)
    evidence = PublicEvidence(attester, config_digest=CONFIG_DIGEST)
    assert {answer.status for answer in await gather(evidence, "", many(50))} == {200}
    assert len(attester.asked) == 1


async def test_who_waited_for_a_document_that_could_not_be_made_does_not_wait_again(autojump_clock: MockClock) -> None:
    attester = ScriptedAttester(takes=5)
    attester.fails = "nsm_stalled"
    evidence = PublicEvidence(attester, config_digest=CONFIG_DIGEST)
    answers = await gather(evidence, "", many(50))
    assert {(answer.status, code_of(answer), answer.header("retry-after")) for answer in answers} == {
        (503, "attestation_unavailable", "1")
    }
    assert trio.current_time() < 6
    attester.fails = None
    await trio.sleep(1.1)
    assert [answer.status for answer in await gather(evidence, "", ["10.0.0.1"])] == [200]


async def test_a_client_that_leaves_while_it_waits_leaves_the_others_their_document(autojump_clock: MockClock) -> None:
    attester = ScriptedAttester(takes=1)
    evidence = PublicEvidence(attester, config_digest=CONFIG_DIGEST)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as leaving:

            async def leave() -> None:
                await trio.sleep(0.5)
                leaving.cancel()

            nursery.start_soon(leave)
            await gather(evidence, "", ["10.0.0.1"])
    assert [answer.status for answer in await gather(evidence, "", many(3))] == [200] * 3


@pytest.mark.parametrize("query", ["", f"nonce={b64url(NONCE)}"])
async def test_more_than_can_be_served_are_told_at_once_to_come_back(autojump_clock: MockClock, query: str) -> None:
    attester = ScriptedAttester(takes=1)
    evidence = PublicEvidence(attester, config_digest=CONFIG_DIGEST, limits=EvidenceLimits(waiting_max=3))
    answers = await gather(evidence, query, many(10))
    assert sorted(answer.status for answer in answers) == [200] * 4 + [503] * 6
    refused = next(answer for answer in answers if answer.status == 503)
    assert (code_of(refused), refused.header("retry-after")) == ("attestation_busy", "1")


async def test_an_address_that_asks_too_often_is_held_back_and_no_other(tmp_path: Path, autojump_clock: MockClock) -> None:
    limits = replace(IngressLimits(), evidence=EvidenceLimits(rate=0.5, burst=2))
    async with ingress(tmp_path, App(), limits=limits) as gate:
        async with gate.client() as client:
            assert [(await ask(client)).status for _ in range(2)] == [200, 200]
            response = await ask(client, f"?nonce={b64url(NONCE)}")
            assert (response.status, code_of(response), response.header("retry-after")) == (429, "rate_limited", "2")
            assert (await ask(client, target="/")).status == 200
        async with gate.client(source="203.0.113.8") as client:
            assert (await ask(client)).status == 200
        await trio.sleep(2)
        async with gate.client() as client:
            assert [(await ask(client)).status for _ in range(2)] == [200, 429]


async def test_a_network_of_ipv6_counts_as_one_address(autojump_clock: MockClock) -> None:
    evidence = PublicEvidence(ScriptedAttester(), config_digest=CONFIG_DIGEST, limits=EvidenceLimits(burst=2))
    clients = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3", "2001:db8:0:1::1"]
    assert [(await gather(evidence, "", [client]))[0].status for client in clients] == [200, 200, 429, 200]


@pytest.mark.parametrize(("reason", "status"), [("nsm_stalled", 503), ("nsm_busy", 503), ("nsm_invalid_argument", 500)])
async def test_a_device_that_fails_says_whether_to_try_again_and_nothing_else(tmp_path: Path, reason: str, status: int) -> None:
    async with ingress(tmp_path, App()) as gate, gate.client() as client:
        gate.attester.fails = reason
        response = await ask(client, f"?nonce={b64url(NONCE)}")
        assert response.status == status
        assert (response.header("retry-after") is not None) == (status == 503)
        assert reason.encode() not in response.body
