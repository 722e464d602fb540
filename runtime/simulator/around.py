"""What stands around an enclave on one machine: provisioner, parent and a client, and what they show; `simulate` and `vm` share it."""

import json
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from tomllib import TOMLDecodeError
from typing import Any

import trio
from cryptography import x509

from runtime.client.session import Attested, Policy, Target, open_session
from runtime.enclave.logs.output import DECISIONS, REQUESTS
from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp
from runtime.net.http import Response
from runtime.net.serve import CONNECTION_ERRORS
from runtime.provisioner import audit
from runtime.provisioner.store import Store
from runtime.settings import SettingsError
from runtime.simulator.layout import Layout
from runtime.simulator.programs import Program, running
from runtime.simulator.steps import Step, Steps, enclave_text, short
from runtime.verifier.appraise import AppraisalFailed
from runtime.verifier.reference import ReferenceValues

BOOT_SECONDS = 120.0
_ANYWHERE = ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost")  # noqa: S104 - compared with, not bound to


class SimulationFailed(Exception):
    """The simulation cannot go on; the message is for a person."""


EXPECTED_ERRORS = (SimulationFailed, SettingsError, OSError, TOMLDecodeError)


@dataclass(slots=True)
class Simulation:
    """One run. `began` is when, by trio's clock; `public` the parent's address once it listens.

    `texts` are other words for some events of the journal.
    """

    layout: Layout
    steps: Steps
    as_json: bool
    began: float = field(default_factory=trio.current_time)
    last_state: tuple[str, str] = ("", "")
    is_ready: trio.Event = field(default_factory=trio.Event)
    has_failed: trio.Event = field(default_factory=trio.Event)
    public: Tcp | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    def show(self, name: str, who: str, text: str, **facts: object) -> None:
        """A step that was taken."""
        step = Step(name=name, who=who, text=text, seconds=trio.current_time() - self.began, facts=facts)
        self.steps.show(step)


async def supervised(simulation: Simulation, run: Callable[[], Awaitable[None]], *, once: bool) -> None:
    """`run` until it ends or somebody asks for the end. Raises the first of the expected errors alone: one is enough for a person."""

    async def main() -> None:
        await run()
        simulation.steps.say("\nEvery step held.")  # all has ended: nothing comes behind it
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(main)
                await anext(signals)
                simulation.steps.say("stopping …")
                if once:
                    raise SimulationFailed("stopped before every step held")
                nursery.cancel_scope.cancel()
        except* EXPECTED_ERRORS as group:
            raise _first(group) from None
        finally:
            simulation.layout.clear()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of groups: one is enough for a person."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def running_provisioner(simulation: Simulation) -> AsyncIterator[tuple[Program, str]]:
    """The provisioner and its URL."""
    layout = simulation.layout
    command = ["-m", "runtime.cli", "provisioner", str(layout.provisioner / "provisioner.toml"), "--json"]
    async with running("provisioner", command, layout.logs) as program:
        if (line := await program.first_line()) is not None:
            at = Tcp.parse(json.loads(line)["at"])
            root = (layout.provisioner / "root.pub").read_text().strip()
            simulation.show(
                "provisioner.listening",
                "provisioner",
                f"listening on port {at.port}; root key {short(root.partition(':')[2])}",
                at=str(at),
            )
            yield program, f"https://localhost:{at.port}"
            return
        raise SimulationFailed(f"the provisioner did not start:\n{program.tail()}")


async def follow_parent(
    simulation: Simulation, parent: Program, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Shows what the parent sees of the enclave: the journal, the states, the customer's output."""
    with (simulation.layout.logs / "parent.log").open("a") as log:
        async for line in parent.lines():
            log.write(line + "\n")
            log.flush()
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            if event.get("kind") == "parent" and event.get("event") == "ready":
                simulation.public = Tcp.parse(event["public"])
                simulation.layout.open_parent_ports()
                simulation.show(
                    "parent.ready", "parent", f"listening on {event['public']}; it will carry ciphertext and hold no key"
                )
                task_status.started()
            _take(simulation, event)
    if simulation.public is None:
        raise SimulationFailed(f"the parent did not start:\n{parent.tail()}")


def _take(simulation: Simulation, event: Mapping[str, Any]) -> None:
    name = str(event.get("event"))
    match event.get("kind"):
        case "journal":
            text = simulation.texts.get(name) or enclave_text(
                name, {key.removeprefix("fields."): value for key, value in event.items()}
            )
            if name == "provisioning.opened":
                _show_release(simulation)
            if text is not None:
                simulation.show(name, "enclave", text)
        case "log" if not simulation.as_json and name not in (REQUESTS, DECISIONS):
            simulation.steps.say(f"           customer     | {event.get('line', '')}")
        case "state":
            simulation.last_state = (name, str(event.get("reason") or ""))
            if name == "ready":
                simulation.is_ready.set()
            elif name in ("failed", "stopped"):
                simulation.has_failed.set()


def _show_release(simulation: Simulation) -> None:
    """What the provisioner says that it released, out of its audit log."""
    store = Store(simulation.layout.provisioner / "store.db")
    try:
        released = [row.entry for row in audit.entries(store) if row.entry.event == "released"]
    finally:
        store.close()
    if released:
        entry = released[-1]
        simulation.show(
            "provisioner.released",
            "provisioner",
            f"evidence of {entry.detail['module_id'].partition('-enc')[0]}… holds: challenge "
            f"{short(entry.detail['challenge_id'])} answered, lease {short(entry.detail['lease_id'])}",
        )


async def until_ready(simulation: Simulation, enclave: Program, *, seconds: float = BOOT_SECONDS) -> None:
    """Waits for the enclave, which has just been started, at most so long. Raises `SimulationFailed`."""
    began = trio.current_time()

    async def ended() -> None:
        await enclave.wait()
        with trio.move_on_after(1):  # its last words are on the way
            await simulation.has_failed.wait()

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for wait in (simulation.is_ready.wait, simulation.has_failed.wait, ended):
                nursery.start_soon(_then_cancel, wait, nursery.cancel_scope)
    if not simulation.is_ready.is_set():
        state, reason = simulation.last_state
        raise SimulationFailed(
            f"the enclave did not become ready; last state: {state or 'none'} {reason}\n{enclave.tail()}".rstrip()
        )
    took = trio.current_time() - began
    simulation.show("enclave.ready", "enclave", f"ready {took:.2f} s after its start", seconds_to_ready=round(took, 3))


async def _then_cancel(wait: Any, scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


async def watch(program: Program) -> None:
    """Raises `SimulationFailed` when the program ends."""
    status = await program.wait()
    raise SimulationFailed(f"the {program.name} ended with {status}:\n{program.tail()}")


def public_url(simulation: Simulation, names: Sequence[str]) -> str:
    """Where clients reach the enclave: by one of its names, or by the address."""
    assert simulation.public is not None
    host = "localhost" if simulation.public.host in _ANYWHERE else (*names, simulation.public.host)[0]
    return f"https://{host}:{simulation.public.port}"


async def be_a_client(simulation: Simulation, url: str, reference: ReferenceValues) -> None:
    """Attests the enclave over the network, then asks the customer's program something on the same connection."""
    layout = simulation.layout
    policy = Policy(
        roots=x509.load_pem_x509_certificates(layout.attestation_root.read_bytes()),
        reference=reference,
        ca=x509.load_pem_x509_certificates(layout.ca.read_bytes()),
    )
    nonce = secrets.token_bytes(32)
    try:
        async with open_session(Target.parse(url), policy, nonce=nonce, clock=utc_now) as session:
            _show_attested(simulation, session.attested, nonce)
            answer = await session.request("GET", "/")
    except AppraisalFailed as failed:
        raise SimulationFailed(f"the client refuses the evidence: {failed}") from failed
    except CONNECTION_ERRORS as error:
        raise SimulationFailed(f"the client's request failed: {error}") from error
    _show_answer(simulation, answer)


def _show_attested(simulation: Simulation, attested: Attested, nonce: bytes) -> None:
    reference = attested.result.reference
    assert reference is not None
    simulation.show(
        "client.attested",
        "client",
        f"evidence for nonce {short(nonce)} holds: {reference.name}, TLS key {short(attested.spki_digest)}, "
        f"this very TLS {attested.tls_version} connection ({attested.tls_group})",
        reference=reference.name,
        spki=attested.spki_digest.hex(),
        tls_version=attested.tls_version,
        tls_group=attested.tls_group,
    )


def _show_answer(simulation: Simulation, answer: Response) -> None:
    if answer.status != 200:
        raise SimulationFailed(f"the customer's program answered {answer.status}")
    first = answer.body.decode(errors="backslashreplace").splitlines()
    simulation.show(
        "client.answered",
        "client",
        f"200 from the customer's program, {len(answer.body)} bytes: {' / '.join(first)[:160]}",
        status=answer.status,
        body_sha256=sha256(answer.body).hexdigest(),
    )
