"""A balancer that ends TLS in front of the provisioner answers in its place: with pages for people, when there is nothing behind it.

Such an answer is nobody's word about the enclave. It costs time, never the boot, and never a second lease.
"""

from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from runtime.net.http import HttpClient, Request, Response, serve_http
from runtime.net.tls import TlsStream, server_context
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.messages import CONTENT_TYPE, ProvError
from runtime.simulator.hostile_parent import Treatment, dial_to
from runtime.simulator.stolen_key import ManInTheMiddle, post
from tests.scenarios.boots import Booted, Enclave, enclave_of
from tests.scenarios.world import SERVER_NAME, World

ATTEMPTS = 8  # as provisioner.attempts is by default
HTML = (("content-type", "text/html"),)
CBOR = (("content-type", CONTENT_TYPE),)
BAD_GATEWAY = Response(502, HTML, b"<html><h1>502 Bad Gateway</h1></html>")
PAGES = {
    "502": BAD_GATEWAY,
    "503": Response(503, HTML, b"<html><h1>Service Unavailable</h1></html>"),
    "500 without a body": Response(500),
    "404": Response(404, HTML, b"<html>nothing here</html>"),
    "a redirection": Response(302, (("location", "https://elsewhere.test/"),)),
    "a page that says 200": Response(200, HTML, b"<html>It works!</html>"),
    "nothing, and it is fine": Response(204),
    "garbage of the right type": Response(502, CBOR, b"\xff" * 40),
    "a page without an end": Response(502, HTML, b"x" * 2_000_000),
}

Say = Callable[[str, int], Response | None]
"""(step, how often it was asked for before): what the balancer says by itself, or None to ask the provisioner."""


class Balancer:
    """Has the provisioner's own certificate, as an operator would give it. With `asks_first` the provisioner hears of it all the same."""

    def __init__(self, world: World, say: Say, *, asks_first: bool = False) -> None:
        self.asked: list[str] = []
        self._middle: ManInTheMiddle = world.man_in_the_middle()
        self._context = server_context([world.keys.server], min_version="1.3")
        self._say = say
        self._asks_first = asks_first

    async def handle(self, stream: trio.SocketStream) -> None:
        async with await TlsStream.accept(stream, self._context) as enclave, await self._middle.ask() as provisioner:
            client = HttpClient(provisioner, host=SERVER_NAME)
            await serve_http(enclave, partial(self._answer, client), max_body=MESSAGE_MAX)

    async def _answer(self, client: HttpClient, request: Request) -> Response:
        step = request.path.removeprefix("/prov/1/")
        said = self._say(step, self.asked.count(step))
        self.asked.append(step)
        if said is not None and not self._asks_first:
            return said
        answer = await post(client, step, request.body)
        return said or Response(answer.status, CBOR if answer.body else (), answer.body)


def first(step: str, page: Response, *, times: int = 1) -> Say:
    """`page` for the first times that a step is asked for."""
    return lambda asked, before: page if asked == step and before < times else None


async def boot(world: World, balancer: Balancer) -> tuple[Enclave, Booted]:
    image = world.image(channel="none")
    world.register(image)
    enclave = enclave_of(world, image)
    enclave.parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, balancer.handle))
    return enclave, await enclave.boot()


def reasons(enclave: Enclave) -> list[object]:
    """Why attempts failed, as the journal has it."""
    return [entry.fields["reason"] for entry in enclave.parent.journal("provisioning.attempt_failed")]


def require_secrets(world: World, booted: Booted) -> None:
    assert booted.reason is None
    assert booted.values() == {name: secret.value.reveal() for name, secret in world.secrets.items()}
    assert [lease["state"] for lease in world.leases()] == ["live"]
    world.require_nothing_released_twice()


@pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))
async def test_a_page_instead_of_a_challenge_costs_an_attempt(mock_clock: MockClock, world: World, page: Response) -> None:
    enclave, booted = await boot(world, Balancer(world, first("hello", page, times=3)))
    require_secrets(world, booted)
    assert reasons(enclave) == ["provisioner_unintelligible"] * 3


@pytest.mark.parametrize("asks_first", [False, True], ids=["unheard", "heard"])
@pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))
async def test_a_page_instead_of_a_release_is_answered_with_the_same_evidence(
    mock_clock: MockClock, world: World, page: Response, asks_first: bool
) -> None:
    """Whether or not the first copy arrived, there is one lease, and it is this enclave's."""
    balancer = Balancer(world, first("evidence", page, times=2), asks_first=asks_first)
    enclave, booted = await boot(world, balancer)
    require_secrets(world, booted)
    assert reasons(enclave) == []
    assert balancer.asked == ["hello", "evidence", "evidence", "evidence", "confirm"]


async def test_a_page_instead_of_the_answer_to_a_confirm_is_noted_and_forgotten(mock_clock: MockClock, world: World) -> None:
    enclave, booted = await boot(world, Balancer(world, first("confirm", BAD_GATEWAY, times=2)))
    require_secrets(world, booted)
    failed = enclave.parent.journal("provisioning.confirm_failed")
    assert [entry.fields["reason"] for entry in failed] == ["provisioner_unintelligible"] * 2


async def test_pages_without_end_end_the_boot_after_the_last_attempt_with_their_reason(mock_clock: MockClock, world: World) -> None:
    enclave, booted = await boot(world, Balancer(world, lambda *_: BAD_GATEWAY))
    assert booted.reason == "provisioner_unintelligible"
    assert reasons(enclave) == ["provisioner_unintelligible"] * ATTEMPTS
    statuses = [entry.fields["status"] for entry in enclave.parent.journal("provisioning.attempt_failed")]
    assert statuses == [502] * ATTEMPTS
    assert world.leases() == []


@pytest.mark.parametrize("code", ["refused", "revoked", "malformed", "unsupported_version"])
@pytest.mark.parametrize("step", ["hello", "evidence"])
async def test_a_refusal_of_the_protocols_own_is_final(mock_clock: MockClock, world: World, step: str, code: str) -> None:
    page = Response(403, CBOR, ProvError(code=code, request_id="r").encode())
    balancer = Balancer(world, first(step, page))
    enclave, booted = await boot(world, balancer)
    assert booted.reason == f"provisioner_{code}"
    assert reasons(enclave) == []
    assert balancer.asked.count(step) == 1
