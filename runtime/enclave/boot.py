"""One boot, as a table of contents: `_boot` has a line for each step, and each step returns what the next one needs.

Runs in PID 1, or in a child subreaper where another init came first. Everything that can go wrong on the way ends in `failed` with a
reason that the parent is told, and opens nothing.
"""

import os
import secrets
import signal
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import trio

from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.enclave.identity.certificates import accept_identities
from runtime.enclave.identity.entropy import seed_entropy
from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.identity.provisioning import Provisioned, Provisioning, ProvisioningFailed
from runtime.enclave.identity.registers import go_live, measure_config
from runtime.enclave.link import ParentLink
from runtime.enclave.log import BootJournal, reason_of
from runtime.enclave.platform import ImageConfig, Machine, bring_up_loopback
from runtime.enclave.process.customer import Ended
from runtime.enclave.process.reaper import Reaper, become_subreaper
from runtime.enclave.supervisor import CustomerFailed, Hooks, Supervisor
from runtime.enclave.traffic.egress import open_egress
from runtime.enclave.traffic.ingress import Ingress, serve_ingress
from runtime.enclave.traffic.limits import ingress_limits
from runtime.enclave.traffic.local_api import serve_local_api
from runtime.net.endpoint import Unix, connect, listen
from runtime.net.tls import TlsIdentity, server_context
from runtime.protocol.errors import ProtocolError
from runtime.protocol.link import Welcome
from runtime.protocol.link_values import JournalFields
from runtime.settings import SettingsError

CONTROL_PORT = 9001
EGRESS_PORT = 9002
PARENT_SECONDS = 60.0
FLUSH_SECONDS = 5.0


class BootFailed(Exception):
    """A step failed for a reason of its own."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason


_FAILURES = (BootFailed, SettingsError, NsmError, ProvisioningFailed, CustomerFailed, ProtocolError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boot:
    """What every step uses."""

    machine: Machine
    link: ParentLink
    nursery: trio.Nursery
    reaper: Reaper
    boot_id: bytes
    journal: BootJournal
    stop_asked: trio.Event

    def note(self, event: str, fields: JournalFields) -> None:
        """A line of the boot journal."""
        self.journal.event(event, fields)


async def run(machine: Machine) -> int:
    """Boots, runs until the customer's processes have ended or a stop is asked for, and gives the exit status."""
    stop_asked = trio.Event()
    boot_id = secrets.token_bytes(16)
    link = ParentLink(
        lambda: connect(machine.parent(CONTROL_PORT)), boot_id=boot_id, on_drain=lambda _deadline_ms: stop_asked.set()
    )
    async with trio.open_nursery() as nursery:
        boot = _Boot(
            machine=machine,
            link=link,
            nursery=nursery,
            reaper=Reaper(),
            boot_id=boot_id,
            journal=BootJournal(link.journal),
            stop_asked=stop_asked,
        )
        nursery.start_soon(_stop_on_signal, stop_asked)
        nursery.start_soon(boot.reaper.run)
        status = 0
        try:
            with trio.CancelScope() as setting_up:
                nursery.start_soon(_cancel_when_asked, stop_asked, setting_up)
                supervisor = await _boot(boot)
            if not setting_up.cancelled_caught:
                status = await _run_processes(boot, supervisor)
            link.send_state("stopped")
        except _FAILURES as error:
            status = error.status if isinstance(error, CustomerFailed) else 1
            sys.stderr.write(f"enclave: {error}\n")  # the machine's console, which only a debug enclave has
            boot.journal.event("boot.failed", {"reason": reason_of(error)}, level="error")
            link.send_state("failed", reason_of(error))
        with trio.move_on_after(FLUSH_SECONDS):
            await link.flush()
        nursery.cancel_scope.cancel()
    machine.end()
    return status


async def _boot(boot: _Boot) -> Supervisor:
    _prepare(boot)
    config = load_enclave_config(boot.machine.config_bytes(), "enclave.toml")
    image = _image(boot)
    nsm = Nsm(boot.machine.device)
    await _seed(boot, nsm)
    welcome = await _meet_parent(boot)
    await _measure(boot, nsm, config, welcome)
    provisioned = await _provision(boot, nsm, config)
    identities = accept_identities(provisioned.released.bundle.identities, provisioned.tls_key, now=provisioned.clock.now())
    await _become_live(boot, nsm, provisioned)
    api = await _open_local_api(boot, nsm, config, image)
    supervisor = _supervisor(boot, config, image, provisioned, api)
    await _open_ingress(boot, nsm, config, identities, supervisor)
    return supervisor


def _prepare(boot: _Boot) -> None:
    first = os.getpid() == 1
    if not first:
        become_subreaper()
    boot.link.send_state("booting")
    boot.note("boot.started", {"pid_one": int(first), "uid": os.getuid(), "boot_id": boot.boot_id})
    bring_up_loopback()


def _image(boot: _Boot) -> ImageConfig:
    try:
        return boot.machine.image()
    except ValueError as error:
        raise BootFailed("image_config", str(error)) from error


async def _seed(boot: _Boot, nsm: Nsm) -> None:
    credited = await seed_entropy(nsm)
    module = await nsm.describe()
    boot.note("nsm.found", {"module": module.module_id, "entropy_bytes": credited})


async def _meet_parent(boot: _Boot) -> Welcome:
    with trio.move_on_after(PARENT_SECONDS):
        welcome = await boot.link.connect()
        boot.nursery.start_soon(boot.link.run)
        boot.note("parent.met", {"instance": welcome.instance_id})
        return welcome
    raise BootFailed("parent_unreachable", f"no parent answered within {PARENT_SECONDS:g} s")


async def _measure(boot: _Boot, nsm: Nsm, config: EnclaveConfig, welcome: Welcome) -> None:
    await measure_config(nsm, config.digest, welcome.host_parameters)
    boot.note("config.measured", {"config": config.digest[:8], "enclave": config.enclave.id, "epoch": config.enclave.epoch})


async def _provision(boot: _Boot, nsm: Nsm, config: EnclaveConfig) -> Provisioned:
    boot.link.send_state("attesting")
    provisioning = Provisioning(
        config,
        boot_id=boot.boot_id,
        runtime=f"enclave-runtime/{version('enclave-runtime')}",
        nsm=nsm,
        connect=partial(open_egress, lambda: connect(boot.machine.parent(EGRESS_PORT))),
        next_ticket=boot.link.ticket,
        note=lambda event, fields: boot.note(f"provisioning.{event}", fields),
    )
    provisioned = await provisioning.run()
    boot.link.send_state("provisioned")
    return provisioned


async def _become_live(boot: _Boot, nsm: Nsm, provisioned: Provisioned) -> None:
    """From here on no evidence for secrets can be made in this boot, whatever the customer's processes do."""
    try:
        await go_live(nsm)
    except NsmError:
        await provisioned.confirm("failed")
        raise
    boot.nursery.start_soon(provisioned.confirm, "live")  # the provisioner's bookkeeping: nothing here waits for it
    boot.note("live", {"lease": provisioned.released.header.lease_id, "secrets": len(provisioned.released.bundle.secrets)})


async def _open_local_api(boot: _Boot, nsm: Nsm, config: EnclaveConfig, image: ImageConfig) -> str:
    """On the loopback port, and on a socket in the customer's root if they want one there."""
    listeners = [await listen(config.attestation.listen)]
    if config.attestation.socket is not None:
        listeners.append(await listen(Unix((image.root or "") + config.attestation.socket), mode=0o666))
    await boot.nursery.start(partial(serve_local_api, listeners, nsm))
    url = str(config.attestation.listen).replace("tcp:", "http://", 1)
    boot.note("local_api.open", {"at": url})
    return url


def _supervisor(boot: _Boot, config: EnclaveConfig, image: ImageConfig, provisioned: Provisioned, api: str) -> Supervisor:
    def on_exit(process: str, ended: Ended) -> None:
        boot.link.exited(process, code=ended.code, signal=ended.signal)

    hooks = Hooks(
        note=boot.note,
        on_line=boot.link.log,
        on_exit=on_exit,
    )
    return Supervisor(config, image, provisioned.released.bundle.secrets, api=api, hooks=hooks, reaper=boot.reaper)


async def _open_ingress(
    boot: _Boot, nsm: Nsm, config: EnclaveConfig, identities: tuple[TlsIdentity, ...], supervisor: Supervisor
) -> None:
    if config.ingress.mode == "off" or config.ingress.upstream is None:
        return
    if not identities:
        raise BootFailed("no_certificate", "the release holds no TLS identity, and ingress is on")
    context = server_context(identities, min_version=config.tls.min_version)
    listener = await listen(boot.machine.own(config.ingress.vsock_port))
    ingress = Ingress(
        mode=config.ingress.mode,
        upstream=config.ingress.upstream,
        tls_context=lambda: context,
        attester=nsm,
        config_digest=config.digest,
        ready=lambda: supervisor.is_ready,
        log=partial(_log_traffic, boot, config.ingress.http.request_log),
        attestation_path=config.ingress.http.attestation_path,
        limits=ingress_limits(config.ingress.limits),
    )
    await boot.nursery.start(serve_ingress, listener, ingress)
    boot.note("ingress.open", {"mode": config.ingress.mode, "names": ",".join(config.tls.names)})


async def _run_processes(boot: _Boot, supervisor: Supervisor) -> int:
    boot.link.send_state("starting")

    async def stop_when_asked() -> None:
        await boot.stop_asked.wait()
        boot.link.send_state("draining")
        await supervisor.stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_when_asked)
        failure: CustomerFailed | None = None
        status = 0
        try:
            status = await supervisor.run(lambda: boot.link.send_state("ready"))
        except CustomerFailed as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


async def _cancel_when_asked(stop_asked: trio.Event, setting_up: trio.CancelScope) -> None:
    """A stop in the middle of the boot ends it where it is; afterwards the scope is gone and the processes are stopped in order."""
    await stop_asked.wait()
    setting_up.cancel()


async def _stop_on_signal(stop_asked: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop_asked.set()


def _log_traffic(boot: _Boot, with_requests: bool, event: str, **fields: object) -> None:
    if event == "http_request" and not with_requests:
        return
    kept: dict[str, int | str | bytes] = {}
    for name, value in fields.items():
        if isinstance(value, float):
            kept[f"{name}_us"] = round(value * 1e6)
        elif isinstance(value, int | str | bytes):
            kept[name] = value
    boot.link.journal("info", f"traffic.{event}", **kept)
