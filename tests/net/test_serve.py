"""The accept loop: isolation, limits, back-off, drain."""

import errno
from collections import deque

import h11
import pytest
import trio
import trio.testing

from runtime.net.endpoint import Tcp, bound, connect, listen
from runtime.net.serve import CONNECTION_ERRORS, serve
from runtime.net.tls import TlsError
from runtime.protocol.errors import Malformed
from tests.support.sockets import open_descriptors, socket_pair


class ScriptedListener(trio.abc.Listener[trio.SocketStream]):
    """A listener whose accepts are errors and streams in a given order; then it waits until it is closed."""

    def __init__(self, *script: OSError | trio.SocketStream) -> None:
        self.script = deque(script)
        self.accepted_at: list[float] = []
        self.is_closed = trio.Event()

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        self.accepted_at.append(trio.current_time())
        if not self.script:
            await self.is_closed.wait()
        if self.is_closed.is_set():
            raise trio.ClosedResourceError
        step = self.script.popleft()
        if isinstance(step, OSError):
            raise step
        return step

    async def aclose(self) -> None:
        self.is_closed.set()
        await trio.lowlevel.checkpoint()


async def echo(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


def pairs(count: int) -> tuple[list[trio.SocketStream], list[trio.SocketStream]]:
    both = [socket_pair() for _ in range(count)]
    return [near for near, _ in both], [far for _, far in both]


async def test_connections_are_served_side_by_side_and_closed(nursery: trio.Nursery) -> None:
    before = open_descriptors()
    listener = await listen(Tcp("127.0.0.1", 0))
    await nursery.start(lambda task_status: serve(listener, echo, limit=10, task_status=task_status))
    silent = await connect(bound(listener))
    async with await connect(bound(listener)) as stream:
        await stream.send_all(b"not held up by the silent one")
        assert await stream.receive_some() == b"not held up by the silent one"
        await stream.send_eof()
        assert await stream.receive_some() == b""
    await silent.aclose()
    await listener.aclose()
    with trio.fail_after(60):
        while open_descriptors() > before:
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.EMFILE, "no descriptor for the upstream"),
        trio.BrokenResourceError("reset"),
        trio.ClosedResourceError("closed"),
        trio.TooSlowError(),
        Malformed("no header", "proxy_signature"),
        TlsError("tls_handshake", "not TLS"),
        h11.RemoteProtocolError("bad head"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_a_connection_ends_it_and_nothing_else(error: Exception, nursery: trio.Nursery) -> None:
    (near, other), far = pairs(2)
    assert isinstance(error, CONNECTION_ERRORS)
    reported: list[BaseException] = []

    async def handler(stream: trio.SocketStream) -> None:
        if await stream.receive_some() == b"fail":
            raise error
        await stream.send_all(b"served")

    nursery.start_soon(lambda: serve(ScriptedListener(*far), handler, limit=5, on_error=reported.append))
    await near.send_all(b"fail")
    assert await near.receive_some() == b""
    await trio.testing.wait_all_tasks_blocked()
    assert reported == [error]
    await other.send_all(b"work")
    assert await other.receive_some() == b"served"
    await near.aclose()
    await other.aclose()


async def test_errors_out_of_a_handlers_nursery_are_reported_one_by_one() -> None:
    (near,), far = pairs(1)
    reported: list[BaseException] = []
    listener = ScriptedListener(*far)

    async def fail(error: Exception) -> None:
        raise error

    async def handler(_: trio.SocketStream) -> None:
        async with trio.open_nursery() as outer:
            outer.start_soon(fail, trio.BrokenResourceError("first"))
            async with trio.open_nursery() as inner:
                inner.start_soon(fail, Malformed("second"))
        await listener.aclose()

    async with trio.open_nursery() as nursery, near:
        nursery.start_soon(lambda: serve(listener, handler, limit=1, on_error=reported.append))
        await near.receive_some()
        await listener.aclose()
    assert sorted(str(error) for error in reported) == ["first", "second [malformed]"]


@pytest.mark.parametrize("error", [KeyError("bug"), trio.BusyResourceError("bug"), ValueError("bug")])
async def test_any_other_error_ends_the_worker(error: Exception) -> None:
    (near,), far = pairs(1)
    reported: list[BaseException] = []

    async def handler(_: trio.SocketStream) -> None:
        raise error

    with pytest.RaisesGroup(type(error), flatten_subgroups=True):
        await serve(ScriptedListener(*far), handler, limit=1, on_error=reported.append)
    assert reported == []
    assert await near.receive_some() == b""
    await near.aclose()


async def test_a_bug_beside_a_connections_error_still_ends_the_worker() -> None:
    (near,), far = pairs(1)
    reported: list[BaseException] = []

    async def handler(_: trio.SocketStream) -> None:
        raise ExceptionGroup("both", [trio.BrokenResourceError("reset"), KeyError("bug")])

    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await serve(ScriptedListener(*far), handler, limit=1, on_error=reported.append)
    assert [type(error) for error in reported] == [trio.BrokenResourceError]
    await near.aclose()


async def test_at_the_limit_it_stops_accepting(nursery: trio.Nursery) -> None:
    near, far = pairs(3)
    listener = ScriptedListener(*far)
    nursery.start_soon(lambda: serve(listener, echo, limit=2))
    await trio.testing.wait_all_tasks_blocked()
    assert len(listener.script) == 1
    await near[0].aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert len(listener.script) == 0
    for stream in near:
        await stream.aclose()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_want_of_descriptors_is_waited_out(
    number: int, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    (near,), far = pairs(1)
    shortage = [OSError(number, "none left") for _ in range(7)]
    listener = ScriptedListener(*shortage, *far)
    reported: list[BaseException] = []
    nursery.start_soon(lambda: serve(listener, echo, limit=2, on_error=reported.append))
    await near.send_all(b"patience")
    assert await near.receive_some() == b"patience"
    assert reported == shortage
    waits = [after - before for before, after in zip(listener.accepted_at, listener.accepted_at[1:], strict=False)][:7]
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1, 1])
    await near.aclose()


async def test_a_connection_that_was_aborted_before_it_was_accepted_is_passed_over(nursery: trio.Nursery) -> None:
    (near,), far = pairs(1)
    reported: list[BaseException] = []
    listener = ScriptedListener(OSError(errno.ECONNABORTED, "aborted"), *far)
    nursery.start_soon(lambda: serve(listener, echo, limit=1, on_error=reported.append))
    await near.send_all(b"next")
    assert await near.receive_some() == b"next"
    assert reported == []
    await near.aclose()


async def test_any_other_accept_error_ends_the_worker() -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await serve(ScriptedListener(OSError(errno.EINVAL, "not listening")), echo, limit=1)


async def test_closing_the_listener_drains(nursery: trio.Nursery) -> None:
    near, far = pairs(1)
    listener = ScriptedListener(*far)
    served = trio.Event()

    async def run() -> None:
        await serve(listener, echo, limit=5)
        served.set()

    nursery.start_soon(run)
    await near[0].send_all(b"in flight")
    assert await near[0].receive_some() == b"in flight"
    await listener.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert not served.is_set()
    await near[0].send_all(b"still served")
    assert await near[0].receive_some() == b"still served"
    await near[0].aclose()
    await served.wait()


async def test_a_real_listener_drains_too_when_it_is_at_its_limit(nursery: trio.Nursery) -> None:
    listener = await listen(Tcp("127.0.0.1", 0))
    served = trio.Event()

    async def run() -> None:
        await serve(listener, echo, limit=1)
        served.set()

    nursery.start_soon(run)
    stream = await connect(bound(listener))
    await stream.send_all(b"x")
    assert await stream.receive_some() == b"x"
    await listener.aclose()
    await stream.aclose()
    with trio.fail_after(60):
        await served.wait()
