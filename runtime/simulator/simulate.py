"""The whole system on one machine: provisioner, parent, enclave and customer process as programs of their own, then a client.

Simulated are the security module, which signs under a development root, and the transport, unix sockets in place of vsock. Everything
else is what production runs, started the way an operator starts it.
"""

import json
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

import trio
from cryptography import x509

from runtime.client.session import Attested, Policy, Target, open_session
from runtime.enclave.logs.output import REQUESTS
from runtime.net.clock import utc_now
from runtime.net.endpoint import Endpoint, Tcp, bound, listen
from runtime.net.http import Response
from runtime.net.serve import CONNECTION_ERRORS, serve
from runtime.provisioner import audit
from runtime.provisioner.store import Store
from runtime.settings import SettingsError
from runtime.simulator.layout import Layout
from runtime.simulator.programs import Program, running
from runtime.simulator.reach import forward
from runtime.simulator.steps import Step, Steps, enclave_text, short
from runtime.simulator.workspace import Simulated, bake, prepare_parent, prepare_provisioner, register
from runtime.verifier.appraise import AppraisalFailed
from runtime.verifier.reference import ReferenceValues

BOOT_SECONDS = 120.0
_ANYWHERE = ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says. `listen` is the public address, `names` the TLS names in place of the config's."""

    config: Path
    folder: Path
    listen: Endpoint
    names: tuple[str, ...] = ()
    once: bool = False
    as_json: bool = False


class SimulationFailed(Exception):
    """The simulation cannot go on; the message is for a person."""


_EXPECTED = (SimulationFailed, SettingsError, OSError, TOMLDecodeError)


@dataclass(slots=True)
class _Simulation:
    options: Options
    layout: Layout
    steps: Steps
    began: float
    last_state: tuple[str, str] = ("", "")
    is_ready: trio.Event = field(default_factory=trio.Event)
    has_failed: trio.Event = field(default_factory=trio.Event)
    public: Tcp | None = None

    def show(self, name: str, who: str, text: str, **facts: object) -> None:
        step = Step(name=name, who=who, text=text, seconds=trio.current_time() - self.began, facts=facts)
        self.steps.show(step)


async def simulate(options: Options) -> None:
    """Runs the simulation until Ctrl-C, or once. Raises `SimulationFailed`, `SettingsError` or OSError."""
    layout = Layout(options.folder.resolve())
    simulation = _Simulation(options=options, layout=layout, steps=Steps(as_json=options.as_json), began=trio.current_time())
    layout.ready.unlink(missing_ok=True)

    async def main() -> None:
        await _run(simulation)
        simulation.steps.say("\nEvery step held.")  # all has ended: nothing comes behind it
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(main)
                await anext(signals)
                simulation.steps.say("stopping …")
                if options.once:
                    raise SimulationFailed("stopped before every step held")
                nursery.cancel_scope.cancel()
        except* _EXPECTED as group:
            raise _first(group) from None
        finally:
            layout.clear()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of groups: one is enough for a person."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(simulation: _Simulation) -> None:
    layout, options = simulation.layout, simulation.options
    options.config.open("rb").close()  # nothing is started for a file that is not there
    prepare_provisioner(layout, now=utc_now())
    async with AsyncExitStack() as stack:
        provisioner, url = await stack.enter_async_context(_provisioner(simulation))
        simulated = bake(layout, options.config, provisioner=url, names=options.names)
        config = prepare_parent(layout, simulated, provisioner=url, listen=options.listen, now=utc_now())
        reference = register(layout, simulated)
        simulation.show(
            "image.measured",
            "image",
            f"{options.config.name} baked and registered: PCR 0 {short(simulated.registers[0])}, "
            f"PCR 1 (runtime) {short(simulated.registers[1])}, PCR 2 (application) {short(simulated.registers[2])}",
            pcrs={str(index): value.hex() for index, value in simulated.registers.items()},
        )
        parent = await stack.enter_async_context(
            running("parent", ["-m", "runtime.cli", "parent", str(config), "--json"], layout.logs, json_on_stderr=True)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await nursery.start(_follow_parent, simulation, parent)
        await stack.enter_async_context(_module(simulation, simulated))
        enclave = await stack.enter_async_context(
            running("enclave", ["-m", "runtime.simulator.machine", str(layout.base)], layout.logs)
        )
        await _until_ready(simulation, enclave)
        await _serve(simulation, simulated, reference, {"enclave": enclave, "parent": parent, "provisioner": provisioner})


@asynccontextmanager
async def _provisioner(simulation: _Simulation) -> AsyncIterator[tuple[Program, str]]:
    """The provisioner and its URL."""
    layout = simulation.layout
    command = ["-m", "runtime.cli", "provisioner", str(layout.provisioner / "provisioner.toml"), "--json"]
    async with running("provisioner", command, layout.logs) as program:
        async for line in program.lines():
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


@asynccontextmanager
async def _module(simulation: _Simulation, simulated: Simulated) -> AsyncIterator[None]:
    """The simulated security module."""
    registers = [f"{index}={value.hex()}" for index, value in simulated.registers.items()]
    layout = simulation.layout
    command = ["-m", "runtime.simulator.module", str(layout.base), simulated.module_id, *registers]
    async with running("module", command, layout.logs) as program:
        async for _ in program.lines():
            yield
            return
        raise SimulationFailed(f"the simulated security module did not start:\n{program.tail()}")


async def _follow_parent(
    simulation: _Simulation, parent: Program, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
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


def _take(simulation: _Simulation, event: Mapping[str, Any]) -> None:
    name = str(event.get("event"))
    match event.get("kind"):
        case "journal":
            text = enclave_text(name, {key.removeprefix("fields."): value for key, value in event.items()})
            if name == "provisioning.opened":
                _show_release(simulation)
            if text is not None:
                simulation.show(name, "enclave", text)
        case "log" if not simulation.options.as_json and name != REQUESTS:
            simulation.steps.say(f"           customer     | {event.get('line', '')}")
        case "state":
            simulation.last_state = (name, str(event.get("reason") or ""))
            if name == "ready":
                simulation.is_ready.set()
            elif name in ("failed", "stopped"):
                simulation.has_failed.set()


def _show_release(simulation: _Simulation) -> None:
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


async def _until_ready(simulation: _Simulation, enclave: Program) -> None:
    began = trio.current_time()

    async def ended() -> None:
        await enclave.wait()
        with trio.move_on_after(1):  # its last words are on the way
            await simulation.has_failed.wait()

    with trio.move_on_after(BOOT_SECONDS):
        async with trio.open_nursery() as nursery:
            for wait in (simulation.is_ready.wait, simulation.has_failed.wait, ended):
                nursery.start_soon(_then_cancel, wait, nursery.cancel_scope)
    if not simulation.is_ready.is_set():
        state, reason = simulation.last_state
        raise SimulationFailed(
            f"the enclave did not become ready; last state: {state or 'none'} {reason}\n{enclave.tail()}".rstrip()
        )
    seconds = trio.current_time() - began
    simulation.show("enclave.ready", "enclave", f"ready {seconds:.2f} s after its start", seconds_to_ready=round(seconds, 3))


async def _then_cancel(wait: Any, scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


async def _serve(
    simulation: _Simulation, simulated: Simulated, reference: ReferenceValues, programs: Mapping[str, Program]
) -> None:
    options, layout = simulation.options, simulation.layout
    assert simulation.public is not None
    host = "localhost" if simulation.public.host in _ANYWHERE else (*simulated.config.tls.names, simulation.public.host)[0]
    url = f"https://{host}:{simulation.public.port}"
    without_ingress = simulated.config.ingress.mode == "off"
    if simulated.config.ingress.mode == "http":
        await _be_a_client(simulation, url, reference)
    missing = simulation.steps.missing(without_ingress=simulated.config.ingress.mode != "http")
    if options.once:
        if missing:
            raise SimulationFailed(f"steps that did not happen: {', '.join(missing)}")
        return
    pid = int(layout.pid.read_text())
    async with trio.open_nursery() as nursery:
        api = await listen(Tcp("127.0.0.1", 0))
        inside = simulated.config.attestation.listen
        assert isinstance(inside, Tcp)
        await nursery.start(partial(serve, api, partial(forward, pid=pid, inside=inside), limit=1024))
        api_url = f"http://{str(bound(api)).removeprefix('tcp:')}"
        layout.ready.write_text(
            json.dumps(_ready(layout, url, api_url, {**{n: p.pid for n, p in programs.items()}, "enclave": pid}))
        )
        if not without_ingress:
            simulation.steps.say(f"\n{url} is up. Try:\n\n    curl --cacert {layout.ca} {url}/")
            simulation.steps.say(
                f"    enclave attest {url} --root {layout.attestation_root} --reference {layout.reference} --ca {layout.ca}\n"
            )
        simulation.steps.say(f"Local API, for this machine only: {api_url}   Ctrl-C stops everything.")
        for program in programs.values():
            nursery.start_soon(_watch, program)
    raise AssertionError("unreachable: a program that ends raises")


def _ready(layout: Layout, url: str, api_url: str, pids: Mapping[str, int]) -> dict[str, object]:
    return {
        "url": url,
        "ca": str(layout.ca),
        "root": str(layout.attestation_root),
        "reference": str(layout.reference),
        "local_api": api_url,
        "pids": dict(pids),
    }


async def _watch(program: Program) -> None:
    status = await program.wait()
    raise SimulationFailed(f"the {program.name} ended with {status}:\n{program.tail()}")


async def _be_a_client(simulation: _Simulation, url: str, reference: ReferenceValues) -> None:
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


def _show_attested(simulation: _Simulation, attested: Attested, nonce: bytes) -> None:
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


def _show_answer(simulation: _Simulation, answer: Response) -> None:
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
