"""What load balancers are told, and when."""

import json
from pathlib import Path

import trio
from trio.testing import MockClock

from runtime.enclave.link import ParentLink
from runtime.net.http import HttpClient
from runtime.parent.health import HealthServer
from runtime.protocol.link import Pong, State
from runtime.protocol.link_values import StateName
from tests.parent.running import Parent, parent
from tests.support.link_ends import ParentSide, parent_side
from tests.support.sockets import socket_pair

PATHS = ("/livez", "/startupz", "/readyz")


async def answers(running: Parent) -> list[tuple[int, str]]:
    """Status and reason of the three."""
    found = []
    for path in PATHS:
        answer = await running.ask("GET", path, at=running.listening.health)
        body = json.loads(answer.body)
        assert body["ok"] == (answer.status == 200) == (not body["reason"])
        assert answer.header("cache-control") == "no-store"
        found.append((answer.status, body["reason"]))
    return found


async def say(link: ParentLink, state: StateName, reason: str = "") -> None:
    link.send_state(state, reason)
    with trio.fail_after(60):
        await link.flush()


async def test_an_enclave_is_ready_while_it_says_so_on_a_link_that_is_up(tmp_path: Path) -> None:
    async with parent(tmp_path) as running:
        assert await answers(running) == [(200, ""), (503, "not_started"), (503, "not_connected")]
        async with running.enclave() as link:
            await say(link, "starting")
            assert await answers(running) == [(200, ""), (503, "not_started"), (503, "not_ready")]
            await say(link, "ready")
            assert await answers(running) == [(200, ""), (200, ""), (200, "")]
            await say(link, "starting", "clock_old")
            assert await answers(running) == [(200, ""), (200, ""), (503, "not_ready")]
            body = json.loads((await running.ask("GET", "/readyz", at=running.listening.health)).body)
            assert (body["state"], body["state_reason"]) == ("starting", "clock_old")
            assert 0 <= body["age_s"] < 60
            assert 0 <= body["heard_s"] < 60
            await say(link, "degraded", "provisioner_unreachable")
            assert await answers(running) == [(200, ""), (200, ""), (200, "")]
            await say(link, "ready")
            await say(link, "draining")
            assert await answers(running) == [(200, ""), (200, ""), (503, "draining")]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await answers(running) == [(200, ""), (200, ""), (503, "not_connected")]
        async with running.enclave(boot_id=b"2" * 16) as link:
            await say(link, "booting")
            assert await answers(running) == [(200, ""), (503, "not_started"), (503, "not_ready")]


async def test_an_enclave_that_was_asked_to_drain_is_not_ready_before_it_answers(tmp_path: Path) -> None:
    async with parent(tmp_path) as running, running.enclave() as link:
        await say(link, "ready")
        assert (await running.ask("POST", "/drain?deadline_ms=5000")).status == 202
        assert (await answers(running))[2] == (503, "draining")


async def test_nothing_else_is_served_there(tmp_path: Path) -> None:
    async with parent(tmp_path) as running:
        for method, path, status, code in (
            ("GET", "/", 404, "not_found"),
            ("GET", "/status", 404, "not_found"),
            ("POST", "/drain?deadline_ms=0", 404, "not_found"),
            ("GET", "/events", 404, "not_found"),
            ("POST", "/readyz", 405, "method_not_allowed"),
            ("DELETE", "/livez", 405, "method_not_allowed"),
        ):
            answer = await running.ask(method, path, at=running.listening.health)
            assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
        answer = await running.ask("HEAD", "/livez", at=running.listening.health)
        assert (answer.status, answer.body) == (200, b"")
        for path in PATHS:
            assert (await running.ask("GET", path)).status == 404


async def test_an_enclave_that_has_fallen_silent_is_not_ready_until_it_is_heard_of_again(autojump_clock: MockClock) -> None:
    async with parent_side() as side:
        enclave = await side.enclave()
        await enclave.hello()
        await enclave.send(State(sequence=1, name="ready", unix_ms=0))
        await trio.testing.wait_all_tasks_blocked()
        assert await readiness(side) == (200, "")
        await trio.sleep(14)
        assert await readiness(side) == (200, "")
        await trio.sleep(2)
        assert await readiness(side) == (503, "silent")
        await enclave.send(Pong())
        await trio.testing.wait_all_tasks_blocked()
        assert await readiness(side) == (200, "")


async def readiness(side: ParentSide) -> tuple[int, str]:
    ours, theirs = socket_pair()
    server = HealthServer(side.control, is_stopping=lambda: False)
    async with ours, trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, theirs)
        answer = await HttpClient(ours, host="parent").request("GET", "/readyz", max_body=4096)
        nursery.cancel_scope.cancel()
    return answer.status, json.loads(answer.body)["reason"]
