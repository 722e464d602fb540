"""Tickets from a provisioner that a test speaks, over real TLS with client certificates."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import Certificate
from trio.testing import MockClock

from runtime.net.http import Request, Response, serve_http
from runtime.net.tls import TlsIdentity, TlsStream, server_context
from runtime.parent.config import Provisioner, ProvisionerUrl
from runtime.parent.tickets import NoTicket, ProvisionerTickets
from runtime.protocol.messages import ProvError, TicketReply, TicketRequest
from tests.support.certificates import CA, make_ca
from tests.support.sockets import Wire, open_descriptors

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = TicketRequest(enclave_id="app", instance_id="i-0")
CBOR = (("content-type", "application/cbor"),)
REPLY = TicketReply(ticket=bytes(range(32)), lifetime=600)


class Fixture:
    """A provisioner's port; `answer` decides what it answers, `requests` and `clients` have what it saw."""

    def __init__(
        self, nursery: trio.Nursery, directory: Path, ca: CA, *, names: tuple[str, ...] = ("provisioner.example",)
    ) -> None:
        self._server = ca.issue(names)
        self.wire = Wire(nursery, self._serve)
        self.answer: Callable[[Request], Awaitable[Response]] = self.sells
        self.requests: list[Request] = []
        self.clients: list[Certificate | None] = []
        self.client = ca.issue(("parent",), client=True)
        self.config = Provisioner(
            url=ProvisionerUrl("provisioner.example", 7443),
            ca=directory / "ca.pem",
            certificate=directory / "parent.pem",
            key=directory / "parent.key",
        )
        self.config.ca.write_bytes(pem(ca.certificate))
        write_identity(self.client, self.config)

    async def sells(self, request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        return Response(200, CBOR, REPLY.encode())

    def tickets(self, *, now: datetime = NOW) -> ProvisionerTickets:
        return ProvisionerTickets(self.config, REQUEST, now=lambda: now, dial=self.wire.connect)

    async def _serve(self, stream: trio.SocketStream) -> None:
        context = server_context([self._server], ask_client_certificate=True)
        async with await TlsStream.accept(stream, context) as tls:
            self.clients.append(tls.peer_certificate)
            await serve_http(tls, self.answer, max_body=4096)


def pem(certificate: Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_identity(identity: TlsIdentity, config: Provisioner) -> None:
    config.certificate.write_bytes(b"".join(map(pem, identity.chain)))
    config.key.write_bytes(
        identity.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def reason(tickets: ProvisionerTickets) -> str:
    with pytest.raises(NoTicket) as caught:
        await tickets.fetch()
    return caught.value.reason


async def test_a_ticket_is_bought_with_the_parents_certificate(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery, tmp_path, make_ca("root", NOW))
        before = open_descriptors()
        assert await fixture.tickets().fetch() == REPLY
        await trio.testing.wait_all_tasks_blocked()
        assert open_descriptors() == before
        [request] = fixture.requests
        assert (request.method, request.path) == ("POST", "/prov/1/ticket")
        assert request.header("host") == "provisioner.example:7443"
        assert request.header("content-type") == "application/cbor"
        assert TicketRequest.decode(request.body) == REQUEST
        assert fixture.clients == [fixture.client.chain[0]]


async def test_a_provisioner_of_another_authority_another_name_or_another_time_gets_no_request(tmp_path: Path) -> None:
    root = make_ca("root", NOW)
    async with trio.open_nursery() as nursery:
        other = Fixture(nursery, tmp_path, make_ca("other", NOW))
        other.config.ca.write_bytes(pem(root.certificate))
        assert await reason(other.tickets()) == "tls_certificate"
        named = Fixture(nursery, tmp_path, root, names=("other.example",))
        assert await reason(named.tickets()) == "tls_name"
        expired = Fixture(nursery, tmp_path, root)
        assert await reason(expired.tickets(now=NOW + timedelta(days=365))) == "tls_certificate"
        assert other.requests == named.requests == expired.requests == []


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response(403, CBOR, ProvError(code="revoked", request_id="r1").encode()), "revoked"),
        (Response(503, CBOR, ProvError(code="busy", request_id="r1", retry_after=5).encode()), "busy"),
        (Response(403, CBOR, b"\xff"), "cbor_reserved"),
        (Response(200, CBOR, b""), "truncated"),
        (Response(200, CBOR, TicketReply(ticket=bytes(31), lifetime=1).encode()), "malformed"),
        (Response(200, CBOR, bytes(5000)), "too_large"),
        (Response(302, (("location", "https://elsewhere/"),)), "unexpected_answer"),
        (Response(404, (("content-type", "text/html"),), b"<html>"), "unexpected_answer"),
    ],
)
async def test_an_answer_that_is_no_ticket_has_its_reason(response: Response, expected: str, tmp_path: Path) -> None:
    async def answer(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return response

    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery, tmp_path, make_ca("root", NOW))
        fixture.answer = answer
        assert await reason(fixture.tickets()) == expected


async def test_a_provisioner_that_is_away_or_silent_is_unreachable_within_the_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        fixture = Fixture(nursery, tmp_path, make_ca("root", NOW))
        fixture.wire.is_down = True
        assert await reason(fixture.tickets()) == "unreachable"
        fixture.wire.is_down = False
        fixture.wire.handler = lambda _: trio.sleep_forever()
        assert await reason(fixture.tickets()) == "unreachable"
        assert trio.current_time() == pytest.approx(10)
        nursery.cancel_scope.cancel()


async def test_files_that_hold_no_certificate_or_key_are_named(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        ca = make_ca("root", NOW)
        fixture = Fixture(nursery, tmp_path, ca)
        key = fixture.config.key
        encrypted = fixture.client.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
        other = ca.issue(("other",), client=True).key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for content in (b"", b"-----BEGIN PRIVATE KEY-----", encrypted, other):
            key.write_bytes(content)
            with pytest.raises(ValueError, match=str(key)):
                fixture.tickets()
        fixture.config.ca.write_bytes(b"")
        with pytest.raises(ValueError, match=str(fixture.config.ca)):
            fixture.tickets()
        fixture.config.ca.unlink()
        with pytest.raises(FileNotFoundError):
            fixture.tickets()
