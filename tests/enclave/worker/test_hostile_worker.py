"""A worker that was taken over: PID 1 reads it as a stranger, gives it what its role may have, and starts it again when it breaks."""

import sys
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from runtime.enclave.process.fork_server import ForkServer
from runtime.enclave.process.liveness import MISSED_MOST, PING_SECONDS
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.workers import RESTARTS, Worker, WorkerFailed
from runtime.protocol.binding import encode_app, encode_prov
from runtime.protocol.nsm import Attest, ExtendPcr, encode_request
from runtime.protocol.worker_link import (
    Answer,
    Ask,
    Configure,
    Event,
    Failed,
    Finished,
    FromWorker,
    Ping,
    Pong,
    Probed,
    Ready,
    Released,
    Role,
    Started,
    Ticket,
    TicketWanted,
)
from tests.enclave.worker.bench import CONFIG, Bench, Noted, Played, PlayedForkServer, bench

APPLICATION = encode_request(Attest(user_data=encode_app(b"x"), nonce=None, public_key=None))
EVIDENCE = encode_request(Attest(user_data=encode_prov(bytes(48)), nonce=None, public_key=None))

EPERM, EBUSY, ETIMEDOUT = 1, 16, 110


@pytest.fixture
def fork_server() -> PlayedForkServer:
    return PlayedForkServer()


@pytest.fixture
async def on(fork_server: PlayedForkServer) -> AsyncGenerator[Bench]:
    async with bench(fork_server) as made:
        yield made
        await fork_server.aclose()


def worker(on: Bench, role: Role = "api", **given: object) -> Worker:
    return Worker(role, on.services, lambda: Configure(role, CONFIG, bytes(16), "unix:/x", (), False, 1), **given)  # type: ignore[arg-type]


async def test_it_is_configured_first_and_counts_as_started_when_it_says_so(on: Bench, fork_server: PlayedForkServer) -> None:
    served = worker(on)
    async with trio.open_nursery() as nursery:
        told = trio.Event()

        async def start() -> None:
            await nursery.start(served.run)
            told.set()

        nursery.start_soon(start)
        played = await fork_server.workers.receive()
        assert isinstance(await played.hear(), Configure)
        assert not told.is_set()
        await played.say(Started())
        await told.wait()
        served.drain(0)
        await played.say(Finished())
        await played.stream.aclose()


async def test_it_gets_a_document_of_its_own_kind_and_none_of_another(on: Bench, fork_server: PlayedForkServer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker(on).run)
        played = await fork_server.workers.receive()
        await played.hear()
        for number, request in enumerate((EVIDENCE, encode_request(ExtendPcr(index=17, data=b"x")), APPLICATION)):
            await played.say(Ask(number, request))
        answers = {
            answer.number: answer.outcome for answer in [await played.hear() for _ in range(3)] if isinstance(answer, Answer)
        }
        assert (answers[0], answers[1]) == (EPERM, EPERM)
        assert isinstance(answers[2], bytes)
        assert on.device.requests == [APPLICATION]
        assert on.events() == ["worker.refused", "worker.refused"]
        nursery.cancel_scope.cancel()


async def test_it_cannot_pile_up_requests_at_the_module(on: Bench, fork_server: PlayedForkServer) -> None:
    on.device.stall = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker(on).run)
        played = await fork_server.workers.receive()
        await played.hear()
        for number in range(80):
            await played.say(Ask(number, APPLICATION))
        outcomes = [answer.outcome for answer in [await played.hear() for _ in range(80)] if isinstance(answer, Answer)]
        assert outcomes.count(EBUSY) >= 16  # over the 64 that may wait, and those whose turn never came
        assert set(outcomes) <= {EBUSY, ETIMEDOUT}
        assert len(on.device.requests) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "said",
    [b"\0\0\0\x01\xff", b"\xff\xff\xff\xff", b"\0\0\0\x0a\x82\x63ask\x01\x40", b"GET / HTTP/1.1\r\n\r\n", bytes(100)],
    ids=lambda said: said[:12].hex(),
)
async def test_what_is_no_message_ends_it_and_starts_another(on: Bench, fork_server: PlayedForkServer, said: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, worker(on).run)
        first = await fork_server.workers.receive()
        await first.hear()
        await first.say(Started())
        await first.say(said)
        await first.stream.send_eof()
        second = await fork_server.workers.receive()
        assert first.killed.is_set()
        assert isinstance(await second.hear(), Configure)
        assert "worker.ended" in on.events()
        nursery.cancel_scope.cancel()


async def test_one_that_does_not_read_is_ended(on: Bench, fork_server: PlayedForkServer) -> None:
    stuck = worker(on)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, stuck.run)
        played = await fork_server.workers.receive()
        await played.say(Started())
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100_000):
            stuck.tell(Ready(True))
            if played.killed.is_set():
                break
            await trio.lowlevel.checkpoint()
        assert played.killed.is_set()
        nursery.cancel_scope.cancel()


async def test_one_that_dies_too_often_fails_the_enclave(
    on: Bench, fork_server: PlayedForkServer, autojump_clock: MockClock
) -> None:
    async def die_each_time() -> None:
        while True:
            played = await fork_server.workers.receive()
            await played.say(Started())
            await played.stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die_each_time)
        with pytest.raises(WorkerFailed) as failed:
            await worker(on).run()
        nursery.cancel_scope.cancel()
    assert failed.value.reason == "api_worker_budget"
    assert on.events().count("worker.ended") == RESTARTS + 1


async def test_one_that_ends_by_itself_is_told_with_its_code(
    on: Bench, fork_server: PlayedForkServer, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker(on).run)
        played = await fork_server.workers.receive()
        await played.say(Started())
        played.code = 3
        await played.stream.aclose()
        await on.until("worker.ended")
        nursery.cancel_scope.cancel()
    assert on.journal[-1][1] == {"role": "api", "reason": "api_worker_exited", "code": 3}


async def test_one_that_is_stuck_is_killed_and_told_so_and_one_that_answers_is_left_alone(
    on: Bench, fork_server: PlayedForkServer, autojump_clock: MockClock
) -> None:
    async def answer(played: Played) -> None:
        while True:
            if isinstance(await played.hear(), Ping):
                await played.say(Pong())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker(on).run)
        played = await fork_server.workers.receive()
        await played.say(Started())
        async with trio.open_nursery() as answering:
            answering.start_soon(answer, played)
            await trio.sleep(20 * PING_SECONDS)
            answering.cancel_scope.cancel()
        assert on.events() == []
        stuck_at = trio.current_time()
        await played.killed.wait()
        assert MISSED_MOST * PING_SECONDS <= trio.current_time() - stuck_at <= (MISSED_MOST + 1) * PING_SECONDS
        await played.stream.aclose()
        await on.until("worker.ended")
        assert on.journal[-1][1] == {"role": "api", "reason": "api_worker_stuck", "signal": 9}
        await (await fork_server.workers.receive()).say(Started())
        nursery.cancel_scope.cancel()


async def test_a_fork_server_that_ends_by_itself_is_told_with_its_code_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    journal = Noted()
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        nursery.start_soon(ForkServer(reaper).run, journal.note)
        while len(journal) < 2:
            await journal.more.wait()
        nursery.cancel_scope.cancel()
    assert journal[:2] == 2 * [("fork_server.ended", {"reason": "fork_server_exited", "code": 1}, "error")]


async def test_one_that_cannot_be_forked_for_want_of_anything_is_forked_when_it_can(
    on: Bench, fork_server: PlayedForkServer, autojump_clock: MockClock
) -> None:
    served = worker(on)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.run)
        played = await fork_server.workers.receive()
        await played.say(Started())
        await served.serving.wait()
        fork_server.refusals = 10 * RESTARTS
        await played.stream.aclose()
        await (await fork_server.workers.receive()).say(Started())
        assert fork_server.refusals == 0
        nursery.cancel_scope.cancel()
    reasons = [fields["reason"] for event, fields, _ in on.journal if event == "worker.ended"]
    assert reasons == ["api_worker_killed", *(10 * RESTARTS) * ["api_worker_unstarted"]]


async def test_one_that_never_starts_is_a_failure_and_not_a_loop(on: Bench, fork_server: PlayedForkServer) -> None:
    async with trio.open_nursery() as nursery:

        async def close_at_once() -> None:
            await (await fork_server.workers.receive()).stream.aclose()

        nursery.start_soon(close_at_once)
        with pytest.raises(WorkerFailed) as failed:
            await worker(on).run()
    assert failed.value.reason == "api_worker_lost"


async def test_its_failure_has_its_own_reason(on: Bench, fork_server: PlayedForkServer) -> None:
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            await (await fork_server.workers.receive()).say(Failed("tls_name", "somebody else answers"))

        nursery.start_soon(fail)
        with pytest.raises(WorkerFailed) as failed:
            await worker(on, "provision").run()
    assert (failed.value.reason, failed.value.detail) == ("tls_name", "somebody else answers")


async def test_a_release_is_handed_over_and_tickets_come_from_the_parent(on: Bench, fork_server: PlayedForkServer) -> None:
    on.tickets.append(bytes(32))
    provisioner = worker(on, "provision")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, provisioner.run)
        played = await fork_server.workers.receive()
        await played.hear()
        await played.say(TicketWanted())
        assert await played.hear() == Ticket(bytes(32))
        await played.say(TicketWanted())
        assert await played.hear() == Ticket(None)
        release = Released(b"bundle", bytes(16), b"key", 60)
        await played.say(release)
        await provisioner.released.wait()
        assert provisioner.release == release
        await played.say(Finished())
        await played.stream.aclose()


async def test_an_event_about_its_own_subject_reaches_the_journal(on: Bench, fork_server: PlayedForkServer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker(on, "ingress").run)
        played = await fork_server.workers.receive()
        await played.say(Event("warning", "traffic.odd", {"status": 400}))
        await played.say(Ask(1, APPLICATION))
        await played.hear()
        await played.hear()
        assert on.journal[0] == ("traffic.odd", {"status": 400}, "warning")
        nursery.cancel_scope.cancel()


async def test_a_probe_reaches_who_it_is_for(on: Bench, fork_server: PlayedForkServer) -> None:
    probes: list[tuple[str, bool]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker(on, on_probed=lambda process, is_ready: probes.append((process, is_ready))).run)
        played = await fork_server.workers.receive()
        await played.say(Probed("app", True))
        await played.say(Ask(1, APPLICATION))
        await played.hear()
        await played.hear()
        assert probes == [("app", True)]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("role", "said"),
    [
        ("ingress", Finished()),
        ("api", Finished()),
        ("ingress", Failed("a_lie", "")),
        ("api", TicketWanted()),
        ("ingress", Released(b"", bytes(16), None, 0)),
        ("ingress", Probed("app", True)),
        ("ingress", Event("info", "boot.failed", {})),
        ("api", Event("info", "traffic.odd", {})),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_what_is_not_for_its_role_ends_it_and_starts_another(
    on: Bench, fork_server: PlayedForkServer, role: Role, said: FromWorker
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, worker(on, role).run)
        first = await fork_server.workers.receive()
        await first.say(Started())
        await first.say(said)
        second = await fork_server.workers.receive()
        assert first.killed.is_set()
        assert isinstance(await second.hear(), Configure)
        assert "worker.refused" in on.events()
        nursery.cancel_scope.cancel()
