"""What names stand for, as resolvers of a test tell it: fail-over, both families, answers that are kept, and every kind of failure."""

import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from runtime.parent import egress_names
from runtime.parent.egress_names import Resolve, by_resolvers, by_system
from runtime.parent.resolver_address import ResolverAddress

Answer = Callable[[dns.message.Message], dns.message.Message | None]

RECORDS = {
    ("both.example.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("both.example.", "AAAA"): ["2001:db8::1"],
    ("four.example.", "A"): ["192.0.2.4"],
    ("six.example.", "AAAA"): ["2001:db8::6"],
    ("empty.example.", "TXT"): [],
}


def honest(query: dns.message.Message) -> dns.message.Message:
    [question] = query.question
    answer = dns.message.make_response(query)
    name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
    if records := RECORDS.get((name, kind)):
        answer.answer.append(dns.rrset.from_text(name, 300, "IN", kind, *records))
    elif name not in {known for known, _ in RECORDS}:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer


def failing(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.SERVFAIL)
    return answer


def silent(_: dns.message.Message) -> None:
    return None


def truncated(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.flags |= dns.flags.TC
    return answer


class Upstreams:
    """Resolvers on loopback; `asked` counts the questions that each one got over UDP, `over_tcp` those over TCP."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.asked: Counter[int] = Counter()
        self.over_tcp = 0
        self._nursery = nursery

    async def add(self, answer: Answer) -> ResolverAddress:
        """One more, that answers over UDP like this, and over TCP honestly."""
        number = len(self.asked)
        self.asked[number] = 0
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        bound = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await bound.bind(("127.0.0.1", port))
        self._nursery.start_soon(self._serve, bound, number, answer)
        self._nursery.start_soon(trio.serve_listeners, self._over_tcp, [listener])
        return ResolverAddress(ip_address("127.0.0.1"), port)

    async def _serve(self, bound: trio.socket.SocketType, number: int, answer: Answer) -> None:
        with bound:
            while True:
                data, sender = await bound.recvfrom(4096)
                self.asked[number] += 1
                if (message := answer(dns.message.from_wire(data))) is not None:
                    await bound.sendto(message.to_wire(), sender)

    async def _over_tcp(self, stream: trio.SocketStream) -> None:
        self.over_tcp += 1
        data = bytes(await stream.receive_some(4096))
        answer = honest(dns.message.from_wire(data[2:])).to_wire()
        await stream.send_all(len(answer).to_bytes(2, "big") + answer)


@asynccontextmanager
async def asking(*answers: Answer) -> AsyncIterator[tuple[Upstreams, Resolve]]:
    """Resolvers that answer like this, and what asks them."""
    async with trio.open_nursery() as nursery:
        upstreams = Upstreams(nursery)
        with trio.fail_after(60):
            yield upstreams, by_resolvers([await upstreams.add(answer) for answer in answers])
        nursery.cancel_scope.cancel()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is waited for less long; an answer on loopback comes sooner."""
    monkeypatch.setattr(egress_names, "SERVER_TIMEOUT", 0.2)
    monkeypatch.setattr(egress_names, "LIFETIME", 1.0)


async def texts(resolve: Resolve, host: str) -> list[str]:
    return [str(address) for address in await resolve(host)]


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("both.example", ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
        ("four.example", ["192.0.2.4"]),
        ("six.example", ["2001:db8::6"]),
        ("empty.example", []),
        ("none.example", []),
        ("a" * 64 + ".example", []),
        ("a..example", []),
    ],
)
async def test_a_name_has_the_addresses_of_both_families_or_none(
    host: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress_names, "RESOLUTION_DELAY", 60.0)
    async with asking(honest) as (_, resolve):
        addresses = await resolve(host)
    assert sorted(map(str, addresses)) == sorted(found)
    assert [address.version for address in addresses] == [ip_address(text).version for text in found]


async def test_answers_and_denials_are_kept() -> None:
    async with asking(honest) as (upstreams, resolve):
        for host in ("four.example", "none.example"):
            for _ in range(5):
                await resolve(host)
        assert upstreams.asked[0] <= 4


async def test_a_resolver_that_fails_is_passed_over_and_asked_last_from_then_on() -> None:
    async with asking(failing, honest) as (upstreams, resolve):
        assert await texts(resolve, "four.example") == ["192.0.2.4"]
        before = upstreams.asked[0]
        assert await texts(resolve, "six.example") == ["2001:db8::6"]
        assert upstreams.asked[0] == before


@pytest.mark.usefixtures("impatient")
async def test_a_silent_resolver_is_passed_over() -> None:
    async with asking(silent, honest) as (upstreams, resolve):
        assert await texts(resolve, "four.example") == ["192.0.2.4"]
        before = upstreams.asked[0]
        assert await texts(resolve, "six.example") == ["2001:db8::6"]
        assert upstreams.asked[0] == before


async def test_an_answer_that_does_not_fit_is_fetched_over_tcp() -> None:
    async with asking(truncated) as (upstreams, resolve):
        assert await texts(resolve, "four.example") == ["192.0.2.4"]
        assert upstreams.over_tcp > 0


async def test_when_all_resolvers_fail_it_is_no_name_that_is_not_there() -> None:
    async with asking(failing, failing) as (_, resolve):
        with pytest.raises(OSError, match="could answer") as caught:
            await resolve("four.example")
        assert not isinstance(caught.value, TimeoutError)


@pytest.mark.usefixtures("impatient")
async def test_when_all_resolvers_are_silent_it_is_a_timeout() -> None:
    async with asking(silent, silent) as (_, resolve):
        with pytest.raises(TimeoutError):
            await resolve("four.example")


@pytest.mark.parametrize("field", ["id", "question"])
async def test_an_answer_to_another_question_is_no_answer(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_names, "SERVER_TIMEOUT", 0.5)

    def forged(query: dns.message.Message) -> dns.message.Message:
        answer = honest(query)
        if field == "id":
            answer.id ^= 1
        else:
            answer.question = dns.message.make_query("other.example", "A").question
        return answer

    async with asking(forged, honest) as (upstreams, resolve):
        assert await texts(resolve, "four.example") == ["192.0.2.4"]
        assert upstreams.asked[1] > 0


async def test_the_system_knows_what_is_no_name() -> None:
    assert "127.0.0.1" in await texts(by_system, "localhost")
    assert await texts(by_system, "0x7f.1") == ["127.0.0.1"]
    for host in ("a" * 64 + ".example", "a..example"):
        assert await texts(by_system, host) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.2", "10.0.0.2:53"),
        ("10.0.0.2:5353", "10.0.0.2:5353"),
        ("fd00::2", "[fd00::2]:53"),
        ("[fd00::2]:5353", "[fd00::2]:5353"),
    ],
)
def test_a_resolver_is_named_by_its_address(text: str, shown: str) -> None:
    assert str(ResolverAddress.parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "dns.example", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0:53", "[dns.example]:53", "fd00::2%eth0:53", "10.1:"]
)
def test_whatever_else_stands_for_a_resolver_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        ResolverAddress.parse(text)


async def test_names_that_the_system_is_slow_with_take_no_others_thread_and_one_too_many_fails_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        release.wait(120)
        return []

    monkeypatch.setattr(egress_names, "_threads", trio.CapacityLimiter(2))
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        for _ in range(2):
            with trio.move_on_after(0.01) as scope:
                await by_system("slow.example")
            assert scope.cancelled_caught
        with pytest.raises(OSError, match="being looked up"):
            await by_system("slow.example")
        assert await trio.to_thread.run_sync(int) == 0
    finally:
        release.set()
