"""Which of a name's addresses is connected to, and when the next one is tried (RFC 8305)."""

import errno
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock

from runtime.net.hub import Expired, Work
from runtime.net.hub_socket import Plain
from runtime.parent.egress_dial import dial, interleaved, race
from runtime.protocol.address_kind import Address
from tests.support.hubs import running_hub
from tests.support.sockets import open_descriptors

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
NO_ROUTE = OSError(errno.ENETUNREACH, "no route")
SILENT = TimeoutError(errno.ETIMEDOUT, "silent")


def addresses(*texts: str) -> list[Address]:
    return [ip_address(text) for text in texts]


class Servers:
    """Each address answers after so many seconds: with a connection, or with an error."""

    def __init__(self, answers: dict[str, float | tuple[float, OSError]]) -> None:
        self.answers = answers
        self.tried: list[tuple[str, float]] = []

    async def attempt(self, address: Address, port: int) -> socket.socket:
        self.tried.append((str(address), round(trio.current_time(), 2)))
        answer = self.answers[str(address)]
        delay, error = answer if isinstance(answer, tuple) else (answer, None)
        await trio.sleep(delay)
        if error is not None:
            raise error
        return socket.socket()


async def outcome(servers: Servers, tried: Sequence[Address], *, deadline: float = 10.0) -> str:
    """What `race` gives: "connected", or the name of the error."""
    outcomes: list[str] = []

    async def run(work: Work) -> None:
        work.within(deadline)
        try:
            plain = await race(work, tried, 443, attempt=servers.attempt)
        except (OSError, Expired) as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("connected")
            plain.close()

    async with running_hub() as hub:
        hub.start(run)
        await hub.wait_empty()
    return outcomes[0]


def test_families_take_turns_and_the_first_one_is_the_resolvers_choice() -> None:
    found = interleaved(addresses("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"))
    assert list(map(str, found)) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]
    assert list(map(str, interleaved(addresses("192.0.2.1", "192.0.2.2")))) == ["192.0.2.1", "192.0.2.2"]


async def test_the_first_address_that_answers_soon_is_the_only_one_tried(autojump_clock: MockClock) -> None:
    servers = Servers({"192.0.2.1": 0.2, "192.0.2.2": 0.0})
    assert await outcome(servers, addresses("192.0.2.1", "192.0.2.2")) == "connected"
    assert servers.tried == [("192.0.2.1", 0.0)]


async def test_a_silent_address_costs_a_quarter_of_a_second(autojump_clock: MockClock) -> None:
    servers = Servers({"2001:db8::1": 1000, "192.0.2.1": 0.1, "2001:db8::2": 0.0})
    assert await outcome(servers, addresses("2001:db8::1", "2001:db8::2", "192.0.2.1")) == "connected"
    assert servers.tried == [("2001:db8::1", 0.0), ("192.0.2.1", 0.25)]
    assert trio.current_time() == pytest.approx(0.35)


async def test_a_family_without_a_route_costs_no_time(autojump_clock: MockClock) -> None:
    servers = Servers({"2001:db8::1": (0.0, NO_ROUTE), "192.0.2.1": 0.0})
    assert await outcome(servers, addresses("2001:db8::1", "192.0.2.1")) == "connected"
    assert trio.current_time() == 0.0


async def test_a_slow_first_address_may_still_win_and_no_connection_is_left_over(autojump_clock: MockClock) -> None:
    before = open_descriptors()
    servers = Servers({"192.0.2.1": 0.5, "192.0.2.2": 0.25, "192.0.2.3": 1000})
    assert await outcome(servers, addresses("192.0.2.1", "192.0.2.2", "192.0.2.3")) == "connected"
    assert len(servers.tried) >= 2
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ((NO_ROUTE, REFUSED, SILENT), "ConnectionRefusedError"),
        ((NO_ROUTE, SILENT), "TimeoutError"),
        ((NO_ROUTE, NO_ROUTE), "OSError"),
    ],
)
async def test_of_all_errors_the_most_telling_is_told(autojump_clock: MockClock, errors: tuple[OSError, ...], told: str) -> None:
    names = [f"192.0.2.{number}" for number in range(1, len(errors) + 1)]
    servers = Servers({name: (0.0, error) for name, error in zip(names, errors, strict=True)})
    assert await outcome(servers, addresses(*names)) == told


async def test_the_deadline_ends_every_attempt(autojump_clock: MockClock) -> None:
    servers = Servers({"192.0.2.1": 1000, "192.0.2.2": 1000})
    assert await outcome(servers, addresses("192.0.2.1", "192.0.2.2"), deadline=3.0) == "Expired"
    assert trio.current_time() == pytest.approx(3)


async def test_real_sockets_reach_the_one_server_that_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        reached: list[str] = []

        async def run(work: Work, tried: Sequence[Address]) -> None:
            work.within(60)
            plain: Plain = await dial(work, tried, port)
            reached.append(plain.socket.getpeername()[0])
            plain.close()

        async with running_hub() as hub:
            for tried in (addresses("127.0.0.1"), addresses("127.0.0.2", "127.0.0.1"), addresses("::1", "127.0.0.1")):
                hub.start(partial(run, tried=tried))
            with trio.fail_after(60):
                await hub.wait_empty()
        assert reached == ["127.0.0.1"] * 3
