"""Evidence that arrives twice at the same moment, at two processes on one database and at the threads of one: one release, ever."""

import multiprocessing
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from runtime.protocol.messages import Evidence
from runtime.provisioner.config import Limits
from runtime.provisioner.keys import create_keys
from runtime.provisioner.service import Service
from runtime.provisioner.store import Store
from tests.provisioner.racer import Post, post, race
from tests.support.prov import ADDRESS, ENCLAVE_ID, NOW, Attempt, Bench, Connection, ground, record

Answers = list[bytes | str]
ROUNDS = 10


def raced_by_processes(folder: Path, rounds: Sequence[tuple[Post, Post]]) -> list[tuple[bytes | str, bytes | str]]:
    """What the two processes answered in each round."""
    create_keys(folder / "keys", server_names=("localhost",), now=NOW)
    context = multiprocessing.get_context("spawn")
    barrier, root = context.Barrier(2), ground().attestation.der
    ends, children = [], []
    for side in range(2):
        near, far = context.Pipe(duplex=False)
        posts = [pair[side] for pair in rounds]
        children.append(context.Process(target=race, args=(str(folder), root, posts, barrier, far), daemon=True))
        ends.append((near, far))
    for child, (_, far) in zip(children, ends, strict=True):
        child.start()
        far.close()
    try:
        return [(ends[0][0].recv(), ends[1][0].recv()) for _ in rounds]
    finally:
        for child, (near, _) in zip(children, ends, strict=True):
            child.join(30)
            near.close()
            assert child.exitcode == 0
            child.close()


def another(attempt: Attempt) -> bytes:
    """Other evidence for the same challenge, just as right."""
    first = Evidence.decode(attempt.message)
    return Evidence(challenge_id=first.challenge_id, document=attempt.document(), hpke_public_key=first.hpke_public_key).encode()


def ready(bench: Bench, number: int, *, ticket: bytes | None = None) -> Attempt:
    return bench.boot(boot_id=number.to_bytes(16, "big")).attempt(ticket=ticket).ready()


def test_two_processes_with_two_messages_for_one_challenge_release_once(tmp_path: Path, bench: Bench) -> None:
    attempts = [ready(bench, number) for number in range(ROUNDS)]
    bench.put(lease_quota=ROUNDS)
    rounds = [((found.message, found.connection), (another(found), found.connection)) for found in attempts]
    for attempt, answers in zip(attempts, raced_by_processes(tmp_path, rounds), strict=True):
        assert sorted(isinstance(answer, bytes) for answer in answers) == [False, True]
        assert "challenge_gone" in answers
        assert bench.challenge_state(attempt.challenge.challenge_id) == "released"
    assert bench.leases() == [(ENCLAVE_ID, "issued")] * ROUNDS
    assert bench.bundle_version() == ROUNDS


def test_two_processes_with_the_same_message_write_one_lease(tmp_path: Path, bench: Bench) -> None:
    """The slower one may find the release written, and give the very same bytes, or the challenge gone."""
    attempts = [ready(bench, number) for number in range(ROUNDS)]
    bench.put(lease_quota=ROUNDS)
    rounds = [((found.message, found.connection),) * 2 for found in attempts]
    for answers in raced_by_processes(tmp_path, rounds):
        released = {answer for answer in answers if isinstance(answer, bytes)}
        assert len(released) == 1
        assert {answer for answer in answers if isinstance(answer, str)} <= {"challenge_gone"}
    assert bench.leases() == [(ENCLAVE_ID, "issued")] * ROUNDS


def test_two_processes_with_two_keys_for_one_ticket_release_to_one(tmp_path: Path, bench: Bench) -> None:
    rounds: list[tuple[Post, Post]] = []
    bench.put(lease_quota=2 * ROUNDS)  # never the reason here
    for number in range(ROUNDS):
        ticket = bench.ticket()
        one, other = ready(bench, 2 * number, ticket=ticket), ready(bench, 2 * number + 1, ticket=ticket)
        rounds.append(((one.message, one.connection), (other.message, other.connection)))
    for answers in raced_by_processes(tmp_path, rounds):
        assert sorted(isinstance(answer, bytes) for answer in answers) == [False, True]
        assert "refused" in answers
    assert bench.leases() == [(ENCLAVE_ID, "issued")] * ROUNDS
    assert sum(entry.alarm for entry in bench.audited()) == ROUNDS


def test_two_processes_never_exceed_the_quota(tmp_path: Path, bench: Bench) -> None:
    """In each round two boots of one enclave race for its only lease, each with a ticket of its own."""
    rounds: list[tuple[Post, Post]] = []
    for number in range(ROUNDS):
        name = f"enclave-{number}"
        bench.store.put_record(record(enclave_id=name, lease_quota=1))
        one, other = (ready(bench, side, ticket=bench.ticket(enclave_id=name)) for side in range(2))
        rounds.append(((one.message, one.connection), (other.message, other.connection)))
    for answers in raced_by_processes(tmp_path, rounds):
        assert sorted(isinstance(answer, bytes) for answer in answers) == [False, True]
        assert "busy" in answers
    assert sorted(bench.leases()) == sorted((f"enclave-{number}", "issued") for number in range(ROUNDS))


@contextmanager
def restless_threads() -> Iterator[None]:
    """The interpreter changes threads as often as it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def raced_by_threads(services: Sequence[Service], posts: Sequence[Post], *, address: str = ADDRESS) -> Answers:
    barrier, answers = threading.Barrier(len(posts)), []

    def one(service: Service, message: bytes, connection: Connection) -> None:
        barrier.wait(timeout=60)
        answers.append(post(service, message, connection, address=address))

    threads = [threading.Thread(target=one, args=(services[number % len(services)], *each)) for number, each in enumerate(posts)]
    with restless_threads():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return answers


def test_the_threads_of_one_or_two_servers_release_once(bench: Bench) -> None:
    second = Store(bench.path)
    services = [bench.service, Service(bench.config, ground().keys, second, bench.roots, bench.clock)]
    try:
        for number in range(ROUNDS):
            attempt = ready(bench, number)
            posts = [(attempt.message, attempt.connection), (another(attempt), attempt.connection)] * 4
            answers = raced_by_threads(services[: 1 + number % 2], posts)
            assert len(answers) == 8
            assert len({answer for answer in answers if isinstance(answer, bytes)}) == 1
            assert {answer for answer in answers if isinstance(answer, str)} <= {"challenge_gone"}
            assert bench.leases() == [(ENCLAVE_ID, "issued")] * (number + 1)
    finally:
        second.close()


def test_two_servers_wait_for_each_others_transactions(bench: Bench) -> None:
    """A hello reads before it writes: without a lock from its start, SQLite would end one of two such with an error at once."""
    second = Store(bench.path)
    services = (bench.service, Service(bench.config, ground().keys, second, bench.roots, bench.clock))
    hellos = [[bench.boot().attempt().hello() for _ in range(50)] for _ in services]

    def greet(service: Service, messages: list[bytes]) -> int:
        return sum(bool(service.hello(message, bench.caller())) for message in messages)

    try:
        with restless_threads(), ThreadPoolExecutor(2) as pool:
            assert list(pool.map(greet, services, hellos)) == [50, 50]
    finally:
        second.close()


def test_the_threads_of_one_server_share_the_rate_limits(tmp_path: Path) -> None:
    """However the threads meet, an address gets no more than its burst."""
    bench = Bench(tmp_path, limits=Limits(requests_per_enclave=0.01, requests_per_address=0.01, burst=5))
    try:
        for number in range(60):
            posts = [(b"junk", bench.connect())] * 16
            answers = raced_by_threads([bench.service], posts, address=f"192.0.2.{number}")
            assert sorted(map(str, answers)) == ["busy"] * 11 + ["malformed"] * 5
    finally:
        bench.close()
