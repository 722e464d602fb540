"""The provisioner's server over real TLS on the loopback: what reaches the service, and how little of an error leaves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from runtime.net.endpoint import Tcp
from runtime.net.http import HttpClient, Response
from runtime.net.tls import TlsError, TlsIdentity, TlsStream, client_context
from runtime.protocol.binding import EXPORTER_SIZE, PROV_EXPORTER_LABEL, spki_digest
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.messages import CONTENT_TYPE, Evidence, ProvError, TicketReply, TicketRequest
from runtime.protocol.release import RELEASE_MAX
from runtime.protocol.sealing import Suite
from runtime.provisioner.config import Limits
from runtime.provisioner.server import run_provisioner
from tests.provisioner.requests import write
from tests.support.certificates import make_ca
from tests.support.prov import ENCLAVE_ID, INSTANCE, NAMES, NOW, UNLIMITED, Attempt, Bench, Connection, ground

PARENTS = make_ca("parents", NOW)
PARENT = PARENTS.issue(("parent",), client=True)
STRANGER = PARENTS.issue(("stranger",), client=True)
TICKET = TicketRequest(enclave_id=ENCLAVE_ID, instance_id=INSTANCE).encode()
STATUS = {"challenge_gone": 410, "refused": 403, "revoked": 403, "malformed": 400, "unsupported_version": 400, "busy": 503}


def key_digest(identity: TlsIdentity) -> str:
    public_key = identity.chain[0].public_key()
    return spki_digest(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()


class Client:
    """One TLS connection to the server, which is what the evidence of an attempt is bound to."""

    def __init__(self, tls: TlsStream) -> None:
        self.tls = tls
        self.http = HttpClient(tls, host="localhost")

    async def post(self, step: str, body: bytes, *, content_type: str = CONTENT_TYPE) -> Response:
        headers = [("content-type", content_type)]
        return await self.http.request("POST", f"/prov/1/{step}", headers=headers, body=body, max_body=RELEASE_MAX)


class OfTls(Connection):
    """The exporter of a real connection, in the place of the bench's."""

    def __init__(self, tls: TlsStream) -> None:
        super().__init__(b"")
        self._tls = tls

    def exporter(self, context: bytes) -> bytes:
        return self._tls.exporter(PROV_EXPORTER_LABEL, context, EXPORTER_SIZE)


class Server:
    """A running provisioner on the bench's database."""

    def __init__(self, bench: Bench, endpoint: Tcp, lines: list[str]) -> None:
        self.bench = bench
        self.endpoint = endpoint
        self.lines = lines

    @asynccontextmanager
    async def connect(self, identity: TlsIdentity | None = None) -> AsyncIterator[Client]:
        context = client_context([ground().server_ca], now=NOW, identity=identity, min_version="1.3")
        stream = await trio.open_tcp_stream(self.endpoint.host, self.endpoint.port)
        async with await TlsStream.connect(stream, context, server_name="localhost") as tls:
            yield Client(tls)

    async def once(self, step: str, body: bytes, *, identity: TlsIdentity | None = None) -> Response:
        """One request on a connection of its own."""
        async with self.connect(identity) as client:
            return await client.post(step, body)

    async def attempt(self, client: Client) -> Attempt:
        """An attempt on this connection, up to its evidence message, hello and challenge over the wire."""
        ticket = TicketReply.decode((await self.once("ticket", TICKET, identity=PARENT)).body).ticket
        attempt = self.bench.boot(names=NAMES).attempt(ticket=ticket, suites=(Suite.X_WING,))
        attempt.connection = OfTls(client.tls)
        challenge = await client.post("hello", attempt.hello())
        assert challenge.status == 200
        attempt.challenge = attempt.handshake.receive_challenge(challenge.body)
        attempt.evidence()
        return attempt


@asynccontextmanager
async def serving(folder: Path, limits: Limits = UNLIMITED) -> AsyncIterator[Server]:
    bench = Bench(folder, parents=(key_digest(PARENT),), limits=limits)
    config = replace(bench.config, listen=Tcp("127.0.0.1", 0))
    lines: list[str] = []
    serve = partial(run_provisioner, config, ground().keys, bench.store, bench.roots, clock=bench.clock, log=lines.append)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield Server(bench, await nursery.start(serve), lines)
            nursery.cancel_scope.cancel()
    bench.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


def error_of(response: Response) -> ProvError:
    """A PROV/1 error, and nothing beside it."""
    error = ProvError.decode(response.body)
    assert response.header("content-type") == CONTENT_TYPE
    assert response.header("cache-control") == "no-store"
    assert response.status == STATUS.get(error.code, 500)
    assert len(bytes.fromhex(error.request_id)) == 8
    assert response.header("retry-after") == (None if error.retry_after is None else str(error.retry_after))
    assert {name for name, _ in response.headers} <= {"content-type", "cache-control", "content-length", "retry-after"}
    return error


async def test_the_whole_handshake_over_one_connection(server: Server) -> None:
    async with server.connect() as client:
        attempt = await server.attempt(client)
        release = await client.post("evidence", attempt.message)
        assert (release.status, release.header("content-type"), release.header("cache-control")) == (200, CONTENT_TYPE, "no-store")
        released = attempt.opened(release.body)
        assert released.bundle.identities[0].names == NAMES
        confirmed = await client.post("confirm", attempt.handshake.confirm("live"))
        assert (confirmed.status, confirmed.body) == (204, b"")
    assert server.bench.leases() == [(ENCLAVE_ID, "live")]
    assert {entry.detail["address"] for entry in server.bench.audited()} == {"127.0.0.1"}
    assert server.lines == []


async def test_evidence_on_another_connection_than_the_hello_is_refused(server: Server) -> None:
    async with server.connect() as client, server.connect() as other:
        attempt = await server.attempt(client)
        assert error_of(await other.post("evidence", attempt.message)).code == "refused"
    assert server.bench.audited()[-1].reason == "transcript_mismatch"
    assert server.bench.leases() == []


async def test_a_lost_release_is_given_again_on_any_connection(server: Server) -> None:
    async with server.connect() as client:
        attempt = await server.attempt(client)
        release = await client.post("evidence", attempt.message)
    assert (await server.once("evidence", attempt.message)).body == release.body
    assert server.bench.audited()[-1].event == "repeated"


@pytest.mark.parametrize("identity", [None, STRANGER], ids=["no certificate", "a stranger's"])
async def test_a_ticket_needs_the_registered_parents_certificate(server: Server, identity: TlsIdentity | None) -> None:
    assert error_of(await server.once("ticket", TICKET, identity=identity)).code == "refused"
    entry = server.bench.audited()[-1]
    assert (entry.reason, entry.detail["parent_key"]) == ("parent_unknown", key_digest(identity) if identity else "none")


async def test_it_is_the_parents_key_that_counts_and_not_who_certified_it(server: Server) -> None:
    same_key = make_ca("somebody", NOW).issue(("anybody",), client=True, key=PARENT.key)  # type: ignore[arg-type]  # it is on P-256
    assert (await server.once("ticket", TICKET, identity=same_key)).status == 200


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "text/plain", "application/cbor; charset=utf-8", "APPLICATION/CBOR"]
)
async def test_only_cbor_is_read(server: Server, content_type: str) -> None:
    async with server.connect() as client:
        assert error_of(await client.post("hello", b"", content_type=content_type)).code == "malformed"
    assert server.bench.audited() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "post"])
async def test_only_post_is_answered(server: Server, method: str) -> None:
    async with server.connect() as client:
        answer = await client.http.request(method, "/prov/1/hello", headers=[("content-type", CONTENT_TYPE)], max_body=1024)
        assert error_of(answer).code == "malformed"


@pytest.mark.parametrize(
    "path", ["/", "/prov/1/", "/prov/1/hello/", "/prov/2/hello", "/prov/1/renew", "/PROV/1/hello", "//prov/1/hello"]
)
async def test_no_other_path_is_answered(server: Server, path: str) -> None:
    async with server.connect() as client:
        answer = await client.http.request("POST", path, headers=[("content-type", CONTENT_TYPE)], body=b"\xa0", max_body=1024)
        assert error_of(answer).code == "malformed"
    assert server.bench.audited() == []


async def test_a_body_of_16_kib_is_read_and_one_byte_more_is_not(server: Server) -> None:
    assert error_of(await server.once("hello", bytes(MESSAGE_MAX))).code == "malformed"
    assert len(server.bench.audited()) == 1
    answer = await server.once("hello", bytes(MESSAGE_MAX + 1))
    assert (answer.status, answer.header("content-type")) == (413, "application/problem+json")
    assert len(server.bench.audited()) == 1


async def test_the_request_id_of_an_error_is_the_audit_logs(server: Server) -> None:
    errors = [error_of(await server.once("hello", b"junk")) for _ in range(3)]
    assert [entry.detail["request_id"] for entry in server.bench.audited()] == [error.request_id for error in errors]
    assert len({error.request_id for error in errors}) == 3


async def test_an_error_tells_a_code_and_a_request_id_and_nothing_of_why(server: Server) -> None:
    async with server.connect() as client:
        attempt = await server.attempt(client)
        server.bench.put(epoch_floor=99)
        answer = await client.post("evidence", attempt.message)
    error = error_of(answer)
    why = server.bench.audited()[-1].detail["why"]
    assert (error.code, server.bench.audited()[-1].reason) == ("refused", "epoch_floor")
    assert len(answer.body) < 40
    assert "floor" in why
    assert not any(word.encode() in answer.body for word in why.split() if len(word) > 3)


async def test_busy_says_when_to_come_back(server: Server) -> None:
    server.bench.put(lease_quota=0)
    async with server.connect() as client:
        attempt = await server.attempt(client)
        error = error_of(await client.post("evidence", attempt.message))
    assert (error.code, error.retry_after) == ("busy", 60)


async def test_what_is_gone_is_410_and_revoked_403(server: Server) -> None:
    async with server.connect() as client:
        attempt = await server.attempt(client)
        server.bench.put(status="revoked")
        assert error_of(await client.post("evidence", attempt.message)).code == "revoked"
        assert error_of(await client.post("evidence", attempt.message)).code == "challenge_gone"


async def test_a_failing_database_is_an_internal_error_without_detail(server: Server) -> None:
    server.bench.store.close()
    answer = await server.once("ticket", TICKET, identity=PARENT)
    error = error_of(answer)
    assert (answer.status, error.code) == (500, "internal")
    assert answer.body.count(b"database") == 0
    assert len(server.lines) == 1
    assert error.request_id in server.lines[0]
    assert error_of(await server.once("ticket", TICKET, identity=PARENT)).code == "internal"  # and it serves on


async def test_a_record_that_fits_into_no_release_is_an_internal_error_of_its_own_enclave(server: Server) -> None:
    large = {name: Secret(delivery="file", value=SecretValue(bytes(700_000)), file_name=name) for name in ("A", "B")}
    server.bench.put(secrets=large)
    async with server.connect() as client:
        attempt = await server.attempt(client)
        assert error_of(await client.post("evidence", attempt.message)).code == "internal"
        assert server.bench.leases() == []
        server.bench.put(secrets={})
        again = await server.attempt(client)
        assert (await client.post("evidence", again.message)).status == 200


async def test_a_certificate_request_that_no_library_reads_ends_no_server(server: Server) -> None:
    """Whoever may be released to at all could otherwise end the provisioner for everybody."""
    async with server.connect() as client:
        attempt = await server.attempt(client)
        message = Evidence.decode(attempt.message)
        attempt.boot.tls_key = None
        again = attempt.boot.attempt(ticket=attempt.ticket, suites=(Suite.X_WING,))
        again.connection = attempt.connection
        again.challenge = again.handshake.receive_challenge((await client.post("hello", again.hello())).body)
        again.evidence(request=write(version=1))
        assert error_of(await client.post("evidence", again.message)).code == "refused"
        assert server.bench.audited()[-1].reason == "csr_invalid"
        assert message.certificate_request is not None
        assert (await client.post("evidence", attempt.message)).status == 200


async def test_tls_1_2_is_refused(server: Server) -> None:
    context = client_context([ground().server_ca], now=NOW)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    stream = await trio.open_tcp_stream(server.endpoint.host, server.endpoint.port)
    with pytest.raises(TlsError) as refused:
        await TlsStream.connect(stream, context, server_name="localhost")
    assert refused.value.reason == "tls_handshake"
    async with server.connect() as client:
        assert client.tls.version == "1.3"


async def test_a_client_that_speaks_no_tls_is_a_line_in_the_log_and_others_are_served(server: Server) -> None:
    async with await trio.open_tcp_stream(server.endpoint.host, server.endpoint.port) as stream:
        await stream.send_all(b"POST /prov/1/hello HTTP/1.1\r\nhost: localhost\r\n\r\n")
        while await stream.receive_some():
            pass
    assert error_of(await server.once("hello", b"")).code == "malformed"
    assert [line.partition(":")[0] for line in server.lines] == ["connection ended"]


async def test_a_client_that_pins_another_ca_does_not_connect(server: Server) -> None:
    context = client_context([ground().keys.issuing_ca.certificate], now=NOW, min_version="1.3")
    stream = await trio.open_tcp_stream(server.endpoint.host, server.endpoint.port)
    with pytest.raises(TlsError) as refused:
        await TlsStream.connect(stream, context, server_name="localhost")
    assert refused.value.reason == "tls_certificate"


async def test_one_client_cannot_hold_every_connection(tmp_path: Path) -> None:
    """What is over its share ends before any handshake; others are served, and the client again once it lets go."""
    async with serving(tmp_path, replace(UNLIMITED, connections_per_address=2)) as server:
        host, port = server.endpoint.host, server.endpoint.port
        async with await trio.open_tcp_stream(host, port) as first, await trio.open_tcp_stream(host, port):
            async with await trio.open_tcp_stream(host, port) as third:
                assert await third.receive_some() == b""
            assert server.lines == ["connection refused: 127.0.0.1 has 2 already"]
            context = client_context([ground().server_ca], now=NOW, min_version="1.3")
            neighbour = await trio.open_tcp_stream(host, port, local_address="127.0.0.2")
            async with await TlsStream.connect(neighbour, context, server_name="localhost") as tls:
                assert error_of(await Client(tls).post("hello", b"")).code == "malformed"
            await first.send_eof()
            while await first.receive_some():
                pass
            assert error_of(await server.once("hello", b"")).code == "malformed"
