"""An enclave image file, booted as it is in a virtual machine: its own kernel, command line and ramdisks, byte for byte.

Beside it run provisioner and parent as in `simulate`, then a client. Simulated are the security module and the way of the parent's vsock,
both devices behind the kernel's own drivers; the registers are those that the file measures. Nothing in the image knows.
"""

import json
import mmap
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trio

from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.enclave.config_values import show_root_key
from runtime.enclave.init.heartbeat import HEARTBEAT, HEARTBEAT_PORT
from runtime.image.eif import Eif, SectionKind, read_eif
from runtime.image.measure import Measured, measure
from runtime.net.clock import utc_now
from runtime.net.endpoint import Endpoint, Unix, connect, listen
from runtime.net.http import HttpClient
from runtime.net.serve import CONNECTION_ERRORS
from runtime.parent.console import printable
from runtime.protocol.errors import Malformed
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
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import make_module_id
from runtime.simulator.programs import Program, running
from runtime.simulator.steps import EXPECTED_OF_MACHINE, Steps, short
from runtime.simulator.vm.accelerator import works_with_kvm
from runtime.simulator.vm.qemu import Hardware, Parts, arguments, find_qemu
from runtime.simulator.vm.ramdisk import find_file
from runtime.simulator.workspace import Simulated, prepare_parent, prepare_provisioner, register
from runtime.verifier.reference import ReferenceValues

BOOT_SECONDS = 200.0
"""Where instructions are emulated, a machine that is busy with other things takes ten times as long as an idle one."""
DRAIN_SECONDS = 20.0
OFF_SECONDS = 60.0

_CONFIG_PLACES = (b"enclave/enclave.toml", b"rootfs/enclave/enclave.toml")  # by our own init, and by AWS's
_TEXTS = {"boot.started": "first process of the image's own kernel, in a virtual machine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says. `accelerator`: "kvm", "tcg", or "auto" for what works; `qemu`: where scripts/vm-setup put one."""

    image: Path
    folder: Path
    listen: Endpoint
    qemu: Path
    processors: int
    memory_mib: int
    accelerator: str = "auto"
    once: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Booting:
    """A machine that was started, and what runs beside it."""

    enclave: Simulated
    reference: ReferenceValues
    machine: Program
    parent: Program
    provisioner: Program


Devices = Callable[[Layout, Simulated], AbstractAsyncContextManager[Path | None]]
"""Serves the devices of a machine meanwhile; gives the socket of its security module, None for a machine without one."""


async def run_vm(options: Options) -> None:
    """Runs the machine until Ctrl-C, or once. Raises `SimulationFailed`, `VmUnavailable`, `SettingsError`, `Malformed` or OSError."""
    simulation = open_simulation(options)
    await supervised(simulation, partial(_run, simulation, options), once=options.once)


def open_simulation(options: Options) -> Simulation:
    """A run that has not begun."""
    layout = Layout(options.folder.resolve())
    layout.ready.unlink(missing_ok=True)
    return Simulation(layout=layout, steps=Steps(as_json=options.as_json), as_json=options.as_json, texts=_TEXTS)


async def _run(simulation: Simulation, options: Options) -> None:
    async with booting(simulation, options) as booted:
        await until_ready(simulation, booted.machine, seconds=BOOT_SECONDS)
        config = booted.enclave.config
        url = public_url(simulation, config.tls.names)
        if config.ingress.mode == "http":
            await be_a_client(simulation, url, booted.reference)
        if options.once:
            await drain(simulation, booted.machine)
            if missing := simulation.steps.missing(without_ingress=config.ingress.mode != "http", expected=EXPECTED_OF_MACHINE):
                raise SimulationFailed(f"steps that did not happen: {', '.join(missing)}")
        else:
            await _serve(simulation, booted, url)


async def _serve(simulation: Simulation, booted: Booting, url: str) -> None:
    layout = simulation.layout
    files = {"ca": layout.ca, "root": layout.attestation_root, "reference": layout.reference}
    layout.ready.write_text(json.dumps({"url": url, **{name: str(path) for name, path in files.items()}}))
    simulation.steps.say(f"\n{url} is up. Ctrl-C stops everything. Try:\n\n    curl --cacert {layout.ca} {url}/")
    async with trio.open_nursery() as watching:
        for program in (booted.machine, booted.parent, booted.provisioner):
            watching.start_soon(watch, program)


@asynccontextmanager
async def booting(simulation: Simulation, options: Options, devices: Devices | None = None) -> AsyncGenerator[Booting]:
    """Starts everything, the machine last. Raises what `run_vm` does."""
    layout = simulation.layout
    qemu = await find_qemu(options.qemu)
    with options.image.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        measured = measure(read_eif(bytes(data)))
    config = baked_config(measured.eif)
    url = _provisioner_of(layout, config)
    prepare_provisioner(layout, now=utc_now(), port=urlsplit(url).port or 0)
    enclave = enclave_of(config, measured)
    parts = unpack(layout, measured.eif)
    async with AsyncExitStack() as stack:
        provisioner, _ = await stack.enter_async_context(running_provisioner(simulation))
        parent_config = prepare_parent(layout, enclave, provisioner=url, listen=options.listen, now=utc_now())
        reference = register(layout, enclave)
        simulation.show(
            "image.measured",
            "image",
            f"{options.image.name} registered: PCR 0 {short(enclave.registers[0])}, PCR 1 (runtime) {short(enclave.registers[1])}, "
            f"PCR 2 (application) {short(enclave.registers[2])}",
            pcrs={str(index): value.hex() for index, value in enclave.registers.items()},
        )
        parent = await stack.enter_async_context(
            running("parent", ["-m", "runtime.cli", "parent", str(parent_config), "--json"], layout.logs, json_on_stderr=True)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await nursery.start(follow_parent, simulation, parent)
        await nursery.start(_answer_heartbeat, simulation)
        accelerator = options.accelerator
        if accelerator == "auto":
            accelerator = "kvm" if await works_with_kvm(qemu, parts.kernel) else "tcg"
        hardware = Hardware(processors=options.processors, memory_mib=options.memory_mib, accelerator=accelerator)
        nsm = await stack.enter_async_context((devices or _devices)(layout, enclave))
        command = arguments(qemu, hardware, replace(parts, nsm=nsm))
        machine = await stack.enter_async_context(
            running("machine", [], layout.logs, interpreter=command, environment=qemu.environment)
        )
        simulation.show(
            "machine.started",
            "machine",
            f"QEMU {qemu.version} with {accelerator}, {hardware.processors} processors and {hardware.memory_mib} MiB",
            qemu=qemu.version,
            accelerator=accelerator,
        )
        nursery.start_soon(_follow_console, simulation, machine)
        yield Booting(enclave=enclave, reference=reference, machine=machine, parent=parent, provisioner=provisioner)


def baked_config(eif: Eif) -> EnclaveConfig:
    """The configuration in the image. Raises `SimulationFailed`, `Malformed` or `SettingsError`."""
    ramdisks = eif.all_of(SectionKind.RAMDISK)
    found = next((raw for place in _CONFIG_PLACES if (raw := find_file(ramdisks, place)) is not None), None)
    if found is None:
        raise SimulationFailed("there is no /enclave/enclave.toml in the image: it was not made by `enclave build`")
    return load_enclave_config(found, "enclave.toml of the image")


def enclave_of(config: EnclaveConfig, measured: Measured) -> Simulated:
    """The image on an instance that is made up."""
    instance_id = f"i-{secrets.token_hex(9)[:17]}"
    return Simulated(config=config, instance_id=instance_id, module_id=make_module_id(instance_id), registers=measured.pcrs)


def unpack(layout: Layout, eif: Eif) -> Parts:
    """Writes the parts of the image where QEMU reads them: the ramdisks one behind the other, as the hypervisor hands them over."""
    kernel, command_line = eif.one_of(SectionKind.KERNEL), eif.one_of(SectionKind.COMMAND_LINE)
    assert kernel is not None
    assert command_line is not None
    layout.machine.mkdir(exist_ok=True)
    paths = layout.machine / "kernel", layout.machine / "ramdisk"
    paths[0].write_bytes(kernel)
    with paths[1].open("wb") as file:
        file.writelines(eif.all_of(SectionKind.RAMDISK))
    try:
        text = bytes(command_line).decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("the command line is not ASCII") from None
    return Parts(kernel=paths[0], ramdisk=paths[1], command_line=text, vsock=layout.vsock_device, nsm=None)


def _provisioner_of(layout: Layout, config: EnclaveConfig) -> str:
    """The URL at which the image looks for its provisioner, which must be ours. Raises `SimulationFailed`."""
    wanted = config.provisioner
    ours = layout.provisioner / "root.pub"
    if wanted is None:
        raise SimulationFailed("the image has no [provisioner], so nobody can release anything to it")
    if not ours.exists() or ours.read_text().strip() not in map(show_root_key, wanted.keys):
        raise SimulationFailed(
            f"the image trusts another provisioner than the one in {layout.base}. "
            f"Build it from the config that `enclave vm --prepare enclave.toml --dir {layout.base}` writes"
        )
    return str(wanted.url)


@asynccontextmanager
async def _devices(layout: Layout, simulated: Simulated) -> AsyncGenerator[Path]:
    registers = [f"{index}={value.hex()}" for index, value in simulated.registers.items()]
    ports = str(simulated.config.ingress.vsock_port)
    command = ["-m", "runtime.simulator.vm.devices", str(layout.base), simulated.module_id, ports, *registers]
    async with running("devices", command, layout.logs) as program:
        if await program.first_line() is not None:
            yield layout.device
            return
        raise SimulationFailed(f"the devices of the machine did not start:\n{program.tail()}")


async def _follow_console(simulation: Simulation, machine: Program) -> None:
    """The console: shown, and kept behind what QEMU itself says. The guest is hostile, so nothing in it may move a cursor."""
    with machine.log.open("a") as log:
        async for line in machine.lines():
            text = printable(line.rstrip("\r"))
            log.write(text + "\n")
            log.flush()
            simulation.steps.say(f"           console      | {text}")


async def _answer_heartbeat(simulation: Simulation, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """What nitro-cli does on the parent: takes the first byte from the enclave and echoes it if it is the right one."""
    listener = await listen(Unix(str(simulation.layout.parent_port(HEARTBEAT_PORT).path)))
    task_status.started()
    async with listener:
        stream = await listener.accept()
    beat = b""
    with suppress(*CONNECTION_ERRORS):  # the guest is hostile: a reset is as good as no byte
        async with stream:
            beat = await stream.receive_some(1)
            if beat == HEARTBEAT:
                await stream.send_all(beat)
    if beat == HEARTBEAT:
        simulation.show("machine.heartbeat", "machine", "heartbeat: the image has booted", byte=beat.hex())


async def drain(simulation: Simulation, machine: Program) -> None:
    """Has the enclave finish, as `enclave drain` does, and waits until it has turned its machine off. Raises `SimulationFailed`."""
    began = trio.current_time()
    try:
        with trio.fail_after(DRAIN_SECONDS):
            async with await connect(Unix(str(simulation.layout.sockets / "status.sock"))) as stream:
                target = f"/drain?deadline_ms={round(DRAIN_SECONDS * 1000)}"
                await HttpClient(stream, host="parent").request("POST", target, max_body=1 << 16)
    except trio.TooSlowError:
        raise SimulationFailed("the parent does not answer") from None
    except CONNECTION_ERRORS as error:
        raise SimulationFailed(f"the parent does not drain: {error}") from error
    with trio.move_on_after(OFF_SECONDS):
        await simulation.has_failed.wait()
        if simulation.last_state[0] != "stopped":
            raise SimulationFailed(f"the enclave ended as {' '.join(simulation.last_state)}")
        simulation.show("enclave.drained", "enclave", f"drained in {trio.current_time() - began:.2f} s")
        status = await machine.wait()
        if status != 0:
            raise SimulationFailed(f"QEMU ended with {status}:\n{machine.tail()}")
        simulation.show("machine.off", "machine", "turned off by the enclave itself")
        return
    raise SimulationFailed(f"the machine is still on after {OFF_SECONDS:g} s:\n{machine.tail()}")
