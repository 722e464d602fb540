"""Endpoints: a strict notation, and listeners that behave the same over every kind of socket."""

import errno
import socket
import stat
from pathlib import Path

import pytest
import trio

from runtime.net.endpoint import ANY_CID, PARENT_CID, Endpoint, Tcp, Unix, Vsock, bound, connect, listen, parse_endpoint

NOTATIONS = [
    ("vsock:3:9001", Vsock(3, 9001)),
    ("vsock:4294967295:0", Vsock(ANY_CID, 0)),
    ("unix:/run/enclave/nsm.sock", Unix("/run/enclave/nsm.sock")),
    ("unix:relative path:with colon", Unix("relative path:with colon")),
    ("tcp:127.0.0.1:8080", Tcp("127.0.0.1", 8080)),
    ("tcp:api.example.com:443", Tcp("api.example.com", 443)),
    ("tcp:localhost:0", Tcp("localhost", 0)),
    ("tcp:[::1]:65535", Tcp("::1", 65535)),
    ("tcp:[2001:db8::1]:443", Tcp("2001:db8::1", 443)),
]


@pytest.mark.parametrize(("text", "endpoint"), NOTATIONS)
def test_the_notation_names_an_endpoint_and_comes_back(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected"),
        ("tcp", "expected"),
        ("http://127.0.0.1:80", "expected"),
        ("TCP:127.0.0.1:80", "expected"),
        (" tcp:127.0.0.1:80", "expected"),
        ("vsock:3", "port must be a decimal number"),
        ("vsock:3:9001:1", "port must be a decimal number"),
        ("vsock:-1:9001", "CID must be a decimal number"),
        ("vsock:0x3:9001", "CID must be a decimal number"),
        ("vsock:03:9001", "CID must be a decimal number"),
        ("vsock:4294967296:1", "32 bits"),
        ("vsock:3:4294967296", "32 bits"),
        ("unix:", "a socket's path"),
        ("unix:/" + 107 * "x", "a socket's path"),
        ("unix:/tmp/\0x", "a socket's path"),
        ("tcp:127.0.0.1", "port must be a decimal number"),
        ("tcp:127.0.0.1:", "port must be a decimal number"),
        ("tcp:127.0.0.1:+80", "port must be a decimal number"),
        ("tcp:127.0.0.1:8_0", "port must be a decimal number"),
        ("tcp:127.0.0.1:80\n", "port must be a decimal number"),
        ("tcp:127.0.0.1:\u0664", "port must be a decimal number"),
        ("tcp:127.0.0.1:65536", "at most 65535"),
        ("tcp::80", "not a host name"),
        ("tcp:127.1:80", "not an IPv4 address"),
        ("tcp:2130706433:80", "not an IPv4 address"),
        ("tcp:256.0.0.1:80", "not an IPv4 address"),
        ("tcp:::1:80", "in brackets"),
        ("tcp:[::1:80", "in brackets"),
        ("tcp:[127.0.0.1]:80", "not an IPv6 address"),
        ("tcp:[localhost]:80", "not an IPv6 address"),
        ("tcp:[::g]:80", "not an IPv6 address"),
        ("tcp:-a.example:80", "not a host name"),
        ("tcp:a..example:80", "not a host name"),
        ("tcp:a.example\n:80", "not a host name"),
        ("tcp:" + 64 * "a" + ":80", "not a host name"),
        ("tcp:" + 63 * "aaaa." + "a:80", "not a host name"),
        ("tcp:user@example.com:80", "not a host name"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_endpoint(text)


def test_a_settings_field_may_ask_for_one_kind() -> None:
    assert Tcp.parse("tcp:localhost:1") == Tcp("localhost", 1)
    with pytest.raises(ValueError, match="a tcp: endpoint expected"):
        Tcp.parse("unix:/run/x")


def test_the_parent_has_the_well_known_cid() -> None:
    assert str(Vsock(PARENT_CID, 9000)) == "vsock:3:9000"


async def echo_once(listener: trio.SocketListener, endpoint: Endpoint) -> bytes:
    async with listener, await connect(endpoint) as near, await listener.accept() as far:
        await near.send_all(b"hello")
        await far.send_all(await far.receive_some())
        return await near.receive_some()


async def test_a_tcp_listener_tells_the_port_that_the_kernel_chose() -> None:
    listener = await listen(Tcp("127.0.0.1", 0))
    endpoint = bound(listener)
    assert isinstance(endpoint, Tcp)
    assert endpoint.host == "127.0.0.1"
    assert endpoint.port > 0
    assert await echo_once(listener, endpoint) == b"hello"


async def test_an_ipv6_listener_takes_ipv6_only() -> None:
    listener = await listen(Tcp("::", 0))
    endpoint = bound(listener)
    assert str(endpoint).startswith("tcp:[::]:")
    assert isinstance(endpoint, Tcp)
    with pytest.raises(OSError):
        await connect(Tcp("127.0.0.1", endpoint.port))
    assert await echo_once(listener, Tcp("::1", endpoint.port)) == b"hello"


async def test_tcp_sends_small_messages_at_once() -> None:
    async with (
        await listen(Tcp("127.0.0.1", 0)) as listener,
        await connect(bound(listener)) as near,
        await listener.accept() as far,
    ):
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_vsock_listener_gets_a_port_from_a_machine_that_has_vsock() -> None:
    try:
        listener = await listen(Vsock(ANY_CID, ANY_CID))
    except OSError as error:
        assert error.errno in {errno.EAFNOSUPPORT, errno.ENODEV, errno.EADDRNOTAVAIL}  # noqa: PT017 - a machine without it
        return
    async with listener:
        endpoint = bound(listener)
        assert isinstance(endpoint, Vsock)
        assert 0 < endpoint.port < ANY_CID


async def test_a_unix_socket_is_for_its_owner_unless_told(tmp_path: Path) -> None:
    for name, mode, expected in (("a", None, 0o600), ("b", 0o666, 0o666)):
        endpoint = Unix(str(tmp_path / name))
        listener = await listen(endpoint) if mode is None else await listen(endpoint, mode=mode)
        assert bound(listener) == endpoint
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == expected
        assert await echo_once(listener, endpoint) == b"hello"


async def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    endpoint = Unix(str(tmp_path / "socket"))
    await (await listen(endpoint)).aclose()
    assert (tmp_path / "socket").is_socket()
    assert await echo_once(await listen(endpoint), endpoint) == b"hello"


async def test_a_socket_that_somebody_listens_on_is_kept(tmp_path: Path) -> None:
    endpoint = Unix(str(tmp_path / "socket"))
    first = await listen(endpoint)
    with pytest.raises(OSError, match="in use"):
        await listen(endpoint)
    async with await first.accept() as probe:
        assert await probe.receive_some() == b""
    assert await echo_once(first, endpoint) == b"hello"


async def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await listen(Unix(str(path)))
    assert path.read_text() == "precious"


async def test_nobody_there_is_an_os_error(tmp_path: Path) -> None:
    listener = await listen(Tcp("127.0.0.1", 0))
    gone = bound(listener)
    await listener.aclose()
    for endpoint in (gone, Unix(str(tmp_path / "none"))):
        with pytest.raises(OSError):
            await connect(endpoint)


async def test_a_port_in_use_is_an_os_error_and_leaks_nothing() -> None:
    async with await listen(Tcp("127.0.0.1", 0)) as listener:
        with pytest.raises(OSError, match="in use"):
            await listen(bound(listener))
