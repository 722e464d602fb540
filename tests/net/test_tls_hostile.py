"""TLS handshakes with peers that speak something else, stop, drip or leave: what they get to see, and that nothing stays open."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from runtime.net.tls import TlsError, TlsStream, client_context, server_context
from tests.support.certificates import make_ca
from tests.support.sockets import open_descriptors, socket_pair
from tests.support.tls import at_most

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CA = make_ca("root", NOW)
A = CA.issue(("a.example",))
PROTOCOL_VERSION_ALERT, NO_APPLICATION_PROTOCOL_ALERT = 70, 120


def client_hello(context: SSL.Context) -> bytes:
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


async def answer_to(data: bytes, *, reason: str, context: SSL.Context | None = None) -> bytes:
    """All bytes that a server sends to a raw peer that sends `data` and listens; `reason` is why the server refused."""
    before = open_descriptors()
    raw, far = socket_pair()
    async with raw, trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(TlsError) as refused:
                await TlsStream.accept(far, context or server_context([A]))
            assert refused.value.reason == reason

        nursery.start_soon(accept)
        await raw.send_all(data)
        received = b""
        while chunk := await raw.receive_some():
            received += chunk
    assert open_descriptors() == before
    return received


@pytest.mark.parametrize(
    ("context", "alert", "reason"),
    [
        (lambda: client_context(None, now=NOW, alpn=("h2",)), NO_APPLICATION_PROTOCOL_ALERT, "tls_alpn"),
        (lambda: at_most(client_context(None, now=NOW), "1.2"), PROTOCOL_VERSION_ALERT, "tls_handshake"),
    ],
)
@pytest.mark.parametrize("more", [b"", bytes(20_000)], ids=["alone", "with unread bytes behind it"])
async def test_a_raw_client_sees_the_alert(context: Callable[[], SSL.Context], alert: int, reason: str, more: bytes) -> None:
    server = server_context([A], min_version="1.3")
    answer = await answer_to(client_hello(context()) + more, reason=reason, context=server)
    assert answer[0] == 0x15
    assert answer[-2:] == bytes((2, alert))


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"\0" * 600, bytes(range(256)) * 4, b"\x16\x03\x01\xff\xff" + bytes(100)]
)
async def test_a_peer_that_speaks_no_tls_is_refused(data: bytes) -> None:
    answer = await answer_to(data, reason="tls_handshake")
    assert b"HTTP" not in answer
    assert len(answer) <= 7


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_peer_that_leaves_in_the_handshake_is_named_so(size: int) -> None:
    raw, far = socket_pair()
    await raw.send_all(client_hello(client_context(None, now=NOW))[:size])
    await raw.aclose()
    with pytest.raises(TlsError) as refused:
        await TlsStream.accept(far, server_context([A]))
    assert refused.value.reason == "tls_closed"


async def test_a_silent_peer_is_given_up_at_the_callers_deadline(autojump_clock: trio.testing.MockClock) -> None:
    before = open_descriptors()
    for sent in (b"", client_hello(client_context(None, now=NOW))[:50]):
        raw, far = socket_pair()
        await raw.send_all(sent)
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(10):
                await TlsStream.accept(far, server_context([A]))
        assert await raw.receive_some() == b""
        await raw.aclose()
    assert trio.current_time() == pytest.approx(20)
    assert open_descriptors() == before


async def test_every_cut_of_a_dripped_client_hello_waits_for_the_rest(autojump_clock: trio.testing.MockClock) -> None:
    raw, far = socket_pair()
    hello = client_hello(client_context(None, now=NOW))

    async def drip() -> None:
        for position in range(len(hello)):
            await raw.send_all(hello[position : position + 1])
            await trio.testing.wait_all_tasks_blocked()
        assert (await raw.receive_some(1)) == b"\x16"
        await raw.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with pytest.raises(TlsError):
            await TlsStream.accept(far, server_context([A]))


async def test_the_servers_bytes_are_as_hostile() -> None:
    for data, reason in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls_handshake"), (b"", "tls_closed")):
        raw, near = socket_pair()
        await raw.send_all(data)
        await raw.send_eof()
        with pytest.raises(TlsError) as refused:
            await TlsStream.connect(near, client_context(None, now=NOW), server_name="a.example")
        assert refused.value.reason == reason
        await raw.aclose()
