"""The whole system on one machine: provisioner, parent, enclave and customer process as programs of their own, then a client.

Simulated are the security module, which signs under a development root, and the transport, unix sockets in place of vsock. Everything
else is what production runs, started the way an operator starts it.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from runtime.net.clock import utc_now
from runtime.net.endpoint import Endpoint, Tcp, bound, listen
from runtime.net.serve import serve
from runtime.simulator.around import (
    Simulation,
    SimulationFailed,
    be_a_client,
    follow_parent,
    public_url,
    running_provisioner,
    supervised,
    until_ready,
    watch,
)
from runtime.simulator.egress_records import as_toml, only_looked_up, recorded, smallest_rules
from runtime.simulator.layout import Layout
from runtime.simulator.programs import Program, running
from runtime.simulator.reach import forward
from runtime.simulator.steps import Steps, short
from runtime.simulator.workspace import Simulated, bake, prepare_parent, prepare_provisioner, register
from runtime.verifier.reference import ReferenceValues


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says. `listen` is the public address, `names` the TLS names in place of the config's."""

    config: Path
    folder: Path
    listen: Endpoint
    names: tuple[str, ...] = ()
    once: bool = False
    as_json: bool = False
    learn_egress: bool = False


async def simulate(options: Options) -> None:
    """Runs the simulation until Ctrl-C, or once. Raises `SimulationFailed`, `SettingsError` or OSError."""
    layout = Layout(options.folder.resolve())
    simulation = Simulation(layout=layout, steps=Steps(as_json=options.as_json), as_json=options.as_json)
    layout.ready.unlink(missing_ok=True)
    try:
        await supervised(simulation, partial(_run, simulation, options), once=options.once)
    finally:
        if options.learn_egress and layout.events.exists():
            records = recorded(layout.events.read_text(errors="replace"))
            rules = as_toml(smallest_rules(records), only_looked_up(records))
            simulation.steps.tell("egress.learned", "\nWhat the processes asked for, and nothing else:\n\n" + rules, rules)


async def _run(simulation: Simulation, options: Options) -> None:
    layout = simulation.layout
    options.config.open("rb").close()  # nothing is started for a file that is not there
    prepare_provisioner(layout, now=utc_now())
    async with AsyncExitStack() as stack:
        provisioner, url = await stack.enter_async_context(running_provisioner(simulation))
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
        await nursery.start(follow_parent, simulation, parent)
        await stack.enter_async_context(_module(simulation, simulated))
        enclave = await stack.enter_async_context(
            running("enclave", ["-m", "runtime.simulator.machine", str(layout.base)], layout.logs)
        )
        await until_ready(simulation, enclave)
        programs = {"enclave": enclave, "parent": parent, "provisioner": provisioner}
        await _serve(simulation, options, simulated, reference, programs)


@asynccontextmanager
async def _module(simulation: Simulation, simulated: Simulated) -> AsyncIterator[None]:
    """The simulated security module."""
    registers = [f"{index}={value.hex()}" for index, value in simulated.registers.items()]
    layout = simulation.layout
    command = ["-m", "runtime.simulator.module", str(layout.base), simulated.module_id, *registers]
    async with running("module", command, layout.logs) as program:
        if await program.first_line() is not None:
            yield
            return
        raise SimulationFailed(f"the simulated security module did not start:\n{program.tail()}")


async def _serve(
    simulation: Simulation, options: Options, simulated: Simulated, reference: ReferenceValues, programs: Mapping[str, Program]
) -> None:
    layout = simulation.layout
    url = public_url(simulation, simulated.config.tls.names)
    without_ingress = simulated.config.ingress.mode == "off"
    if simulated.config.ingress.mode == "http":
        await be_a_client(simulation, url, reference)
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
            nursery.start_soon(watch, program)
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
