"""One boot, as a table of contents: `_boot` has a line for each step, and each step returns what the next one needs.

Runs in PID 1, or in a child subreaper where another init came first. It parses nothing that came from the network or from a customer
process: workers do (runtime/enclave/worker). Everything that can go wrong on the way ends in `failed` with a reason that the parent is
told, and opens nothing.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

import trio

from runtime.enclave.booting import Boot
from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.enclave.drain import TCP_RESERVE, drain, hear_out
from runtime.enclave.identity.entropy import open_module
from runtime.enclave.identity.handover import worker_identities
from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.identity.registers import go_live, measure_config
from runtime.enclave.identity.timekeeping import ClockFailed, Timekeeper
from runtime.enclave.init.network import keeping_sockets, proxy_socket, resolver_sockets
from runtime.enclave.init.steps import Report
from runtime.enclave.logs.output import DECISIONS, REQUESTS, Logs, open_logs
from runtime.enclave.memory import MemoryGuard
from runtime.enclave.metrics import Sums
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.customer import Ended
from runtime.enclave.process.workers import Services, Worker, WorkerFailed
from runtime.enclave.refusals import watched
from runtime.enclave.renewal import Renewal
from runtime.enclave.run import FLUSH_SECONDS, Ground
from runtime.enclave.stop import cancel_when_asked
from runtime.enclave.supervisor import CustomerFailed, Hooks, Supervisor
from runtime.net.endpoint import Tcp, Unix, listen
from runtime.protocol.bundle import Bundle, Lease
from runtime.protocol.errors import ProtocolError
from runtime.protocol.link import Welcome
from runtime.protocol.worker_link import Configure, ConfirmNow, LinkIsUp, Role, Watch, WorkerIdentity
from runtime.settings import SettingsError

EGRESS_PORT = 9002
PARENT_SECONDS = 60.0


class BootFailed(Exception):
    """A step failed for a reason of its own."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason


FAILURES = (BootFailed, SettingsError, NsmError, ClockFailed, WorkerFailed, CustomerFailed, ProtocolError, OSError)


async def boot_and_serve(ground: Ground) -> int:
    """Boots, then runs until the customer's processes have ended or a stop is asked for; the exit status. Raises one of `FAILURES`."""
    boot = Boot(**{each.name: getattr(ground, each.name) for each in fields(ground)})
    with trio.CancelScope() as setting_up:
        boot.nursery.start_soon(cancel_when_asked, boot.stop, setting_up)
        supervisor = await _boot(boot)
    status = 0
    if setting_up.cancelled_caught:
        boot.note("boot.stopped", {"stage": boot.journal.stage or ""})
    else:
        status = await _run_processes(boot, supervisor)
    if boot.worker_failure is not None:
        raise boot.worker_failure
    return status


async def _boot(boot: Boot) -> Supervisor:
    begin = boot.journal.begin
    begin("prepare")
    _prepare(boot)
    begin("config")
    raw = _config_bytes(boot)
    config = load_enclave_config(raw, "enclave.toml", reads_roots=False)
    boot.metrics.is_enabled = config.metrics.enabled
    boot.link.gate.level = config.log.level
    memory = _guard_memory(boot, config)
    begin("image")
    image = _image(boot)
    _judge(boot, boot.machine.set_name(config.enclave.id))
    begin("entropy")
    nsm = await open_module(boot.machine.device, boot.note)
    begin("clock")
    await _keep_time(boot, nsm, config)
    begin("parent")
    welcome = await _meet_parent(boot)
    begin("measure")
    await _measure(boot, nsm, config, welcome)
    begin("provision")
    services = _services(boot, nsm, config)
    provisioner, bundle = await _provision(boot, services, raw)
    begin("live")
    await _become_live(boot, nsm, provisioner, bundle)
    begin("supervise")
    logs = open_logs(config, bundle.secrets, boot.link, boot_id=boot.boot_id)
    supervisor = _supervisor(boot, config, image, bundle, memory, logs)
    begin("local_api")
    await _open_local_api(boot, services, config, raw, image, supervisor)
    begin("egress")
    await _open_egress(boot, services, config, raw, image, logs)
    begin("ingress")
    boot.serve(worker_identities(bundle.identities, provisioner.release))
    await _open_ingress(boot, services, config, raw, logs)
    _keep_renewed(boot, services, config, raw, provisioner)
    begin("processes")
    return supervisor


def _prepare(boot: Boot) -> None:
    report = boot.machine.prepare()
    _judge(boot, report)
    boot.note("init.done", {"taken": len(report.taken), "left": ",".join(report.left)})


def _judge(boot: Boot, report: Report) -> None:
    """Journals the soft failures of the machine's first steps. Raises `BootFailed` for a fatal one."""
    for failure in report.failures:
        if not failure.is_fatal:
            fields = {"step": failure.step, "reason": failure.reason, "errno": failure.errno}
            boot.note("init.soft_failed", fields, "warning")
    if report.fatal is not None:
        raise BootFailed(report.fatal.reason, report.fatal.detail)


def _config_bytes(boot: Boot) -> bytes:
    try:
        return boot.machine.config_bytes()
    except OSError as error:
        raise BootFailed("config_unreadable", str(error)) from error


def _image(boot: Boot) -> ImageConfig:
    try:
        return boot.machine.image()
    except OSError as error:
        raise BootFailed("image_unreadable", str(error)) from error
    except ValueError as error:
        raise BootFailed("image_config", str(error)) from error


def _guard_memory(boot: Boot, config: EnclaveConfig) -> MemoryGuard:
    memory = MemoryGuard(boot.machine.proc, config.limits, note=boot.note, hold=partial(boot.readiness.hold, "memory"))
    memory.protect()
    boot.metrics.add(memory.metrics)
    boot.nursery.start_soon(memory.run)
    return memory


async def _keep_time(boot: Boot, nsm: Nsm, config: EnclaveConfig) -> None:
    """From here on the machine's clock is right, and kept so."""
    timekeeper = Timekeeper(nsm, boot.machine.clock, config.limits, note=boot.note, hold=partial(boot.readiness.hold, "clock"))
    await timekeeper.set()
    boot.metrics.add(timekeeper.metrics)
    boot.nursery.start_soon(timekeeper.run)


async def _meet_parent(boot: Boot) -> Welcome:
    with trio.move_on_after(PARENT_SECONDS):
        await boot.parent_met.wait()
        welcome = boot.link.welcome
        boot.note("parent.met", {"instance": welcome.instance_id})
        return welcome
    raise BootFailed("parent_unreachable", f"no parent answered within {PARENT_SECONDS:g} s")


async def _measure(boot: Boot, nsm: Nsm, config: EnclaveConfig, welcome: Welcome) -> None:
    await measure_config(nsm, config.digest, welcome.host_parameters)
    boot.note("config.measured", {"config": config.digest[:8], "enclave": config.enclave.id, "epoch": config.enclave.epoch})


def _services(boot: Boot, nsm: Nsm, config: EnclaveConfig) -> Services:
    return Services(
        nsm=nsm,
        config_digest=config.digest,
        ticket=boot.link.ticket,
        note=boot.note,
        reaper=boot.reaper,
        fork_server=boot.fork_server,
    )


async def _provision(boot: Boot, services: Services, raw: bytes) -> tuple[Worker, Bundle]:
    boot.link.send_state("attesting")
    worker = Worker("provision", services, partial(_configure, boot, "provision", raw))
    await _start(boot, worker)
    assert worker.release is not None
    bundle = Bundle.decode(worker.release.bundle)
    boot.link.send_state("provisioned")
    return worker, bundle


async def _become_live(boot: Boot, nsm: Nsm, provisioner: Worker, bundle: Bundle) -> None:
    """From here on no evidence for secrets can be made in this boot, whatever the customer's processes do."""
    assert provisioner.release is not None
    try:
        await go_live(nsm)
    except NsmError:
        provisioner.tell(ConfirmNow("failed"))
        with trio.move_on_after(FLUSH_SECONDS):
            await provisioner.finished.wait()
        raise
    provisioner.tell(ConfirmNow("live"))  # the provisioner's bookkeeping: nothing here waits for it
    boot.note("live", {"lease": provisioner.release.lease_id, "secrets": len(bundle.secrets)})


def _supervisor(
    boot: Boot, config: EnclaveConfig, image: ImageConfig, bundle: Bundle, memory: MemoryGuard, logs: Logs
) -> Supervisor:
    def on_exit(process: str, ended: Ended) -> None:
        if memory.was_killed(ended.signal):
            boot.note("process.killed", {"process": process, "reason": "oom_killed"}, "error")
        boot.link.exited(process, code=ended.code, signal=ended.signal)

    hooks = Hooks(
        note=boot.note,
        output=logs.open,
        on_exit=on_exit,
        on_ready=boot.readiness.processes,
        watch=lambda process, is_on: boot.tell("api", Watch(process, is_on)),
    )
    supervisor = Supervisor(config, image, bundle.secrets, api=_api_url(config), hooks=hooks, reaper=boot.reaper)
    memory.customers = lambda: supervisor.pids
    return supervisor


async def _open_local_api(
    boot: Boot, services: Services, config: EnclaveConfig, raw: bytes, image: ImageConfig, supervisor: Supervisor
) -> None:
    """On the loopback port, and on a socket in the customer's root if they want one there."""
    try:
        listeners = [await listen(config.attestation.listen)]
        if config.attestation.socket is not None:
            listeners.append(await listen(Unix((image.root or "") + config.attestation.socket), mode=0o666))
    except OSError as error:
        raise BootFailed("local_api_listen", str(error)) from error

    def on_started(worker: Worker) -> None:
        for process in supervisor.watched:
            worker.tell(Watch(process, True))

    worker = Worker(
        "api",
        services,
        partial(_configure, boot, "api", raw),
        listeners,
        on_probed=supervisor.probed,
        on_started=on_started,
    )
    await _start(boot, worker)
    boot.workers.append(worker)
    boot.note("local_api.open", {"at": _api_url(config)})


async def _open_egress(boot: Boot, services: Services, config: EnclaveConfig, raw: bytes, image: ImageConfig, logs: Logs) -> None:
    """The sockets are this process's, so that no other can have their places while a worker is started again."""
    if image.root is None:  # then the network is not ours alone either
        boot.note("egress.unavailable", {"reason": "no_namespace"}, "warning")
        return
    try:
        sockets: tuple[socket.socket, ...] = (*resolver_sockets(), watched(boot.nursery, boot.note), *keeping_sockets())
        if isinstance(proxy := config.egress.proxy, Tcp):
            sockets = (*sockets, proxy_socket(proxy.host, proxy.port))
    except OSError as error:
        raise BootFailed("egress_listen", str(error)) from error
    sums = Sums()
    boot.metrics.add(sums.read)
    boot.link.on_up = lambda is_up: boot.tell("egress", LinkIsUp(is_up))
    worker = Worker(
        "egress",
        services,
        partial(_configure, boot, "egress", raw),
        sockets=sockets,
        on_started=lambda started: started.tell(LinkIsUp(boot.link.is_up)),
        on_requests=logs.open(DECISIONS, "stdout").feed,
        on_counted=sums.add,
    )
    await _start(boot, worker)
    boot.workers.append(worker)
    boot.note("egress.open", {"rules": len(config.egress.allow)})


async def _open_ingress(
    boot: Boot,
    services: Services,
    config: EnclaveConfig,
    raw: bytes,
    logs: Logs,
) -> None:
    if config.ingress.mode == "off":
        return
    if not boot.identities and config.ingress.mode != "passthrough":
        raise BootFailed("no_certificate", "the release holds no TLS identity, and ingress is on")
    try:
        listener = await listen(boot.machine.own(config.ingress.vsock_port))
    except OSError as error:
        raise BootFailed("ingress_listen", str(error)) from error
    count = (os.cpu_count() or 1) if config.ingress.workers == "auto" else config.ingress.workers

    def configure() -> Configure:
        return _configure(boot, "ingress", raw, boot.identities, is_ready=boot.readiness.is_ready, share=count)

    requests = logs.open(REQUESTS, "stdout").feed  # of all workers, who send whole lines
    workers = [Worker("ingress", services, configure, [listener], on_requests=requests) for _ in range(count)]
    await _start(boot, *workers)
    boot.workers[:0] = workers
    boot.public.append(listener)
    boot.drain_reserve = 0.0 if config.ingress.mode == "http" else TCP_RESERVE
    boot.note("ingress.open", {"mode": config.ingress.mode, "names": ",".join(config.tls.names), "workers": count})


def _keep_renewed(boot: Boot, services: Services, config: EnclaveConfig, raw: bytes, provisioner: Worker) -> None:
    assert config.provisioner is not None
    assert provisioner.release is not None
    if not config.provisioner.renew:
        return
    renewal = Renewal(
        worker=lambda lease: Worker("renew", services, partial(_configure, boot, "renew", raw, lease=lease)),
        serve=boot.serve,
        degrade=boot.readiness.degrade,
        note=boot.note,
        needs_identity=config.ingress.mode in ("http", "tcp"),
    )
    boot.nursery.start_soon(renewal.run, provisioner.release)


async def _run_processes(boot: Boot, supervisor: Supervisor) -> int:
    boot.link.send_state("starting")
    boot.signals.to = supervisor.signal
    status, failure = 0, None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drain_when_asked, boot, supervisor)
        try:
            status = await supervisor.run()
        except CustomerFailed as error:
            failure = error
        await boot.reaper.end_others(min(supervisor.stop_grace, boot.stop.seconds_left))
        await hear_out([worker for worker in boot.workers if worker.role == "egress"])
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


async def _drain_when_asked(boot: Boot, supervisor: Supervisor) -> None:
    await boot.stop.asked.wait()
    boot.link.send_state("draining")
    ingress = [worker for worker in boot.workers if worker.role == "ingress"]
    await drain(boot.stop, ingress, boot.public, supervisor, reserve=boot.drain_reserve)


async def _start(boot: Boot, *workers: Worker) -> None:
    """Runs workers from now on; returns when they serve. A failure while they start is raised here, a later one stops the enclave."""
    async with trio.open_nursery() as starting:
        for worker in workers:
            starting.start_soon(boot.nursery.start, partial(_keep_running, boot, worker))
    if boot.worker_failure is not None:
        raise boot.worker_failure


async def _keep_running(boot: Boot, worker: Worker, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    try:
        await worker.run(task_status=task_status)
    except WorkerFailed as error:
        boot.worker_failure = boot.worker_failure or error
        boot.stop.ask(0)
        if not worker.serving.is_set():
            task_status.started()


def _configure(
    boot: Boot,
    role: Role,
    raw: bytes,
    identities: Sequence[WorkerIdentity] = (),
    *,
    is_ready: bool = False,
    share: int = 1,
    lease: Lease | None = None,
) -> Configure:
    return Configure(role, raw, boot.boot_id, str(boot.machine.parent(EGRESS_PORT)), tuple(identities), is_ready, share, lease)


def _api_url(config: EnclaveConfig) -> str:
    return str(config.attestation.listen).replace("tcp:", "http://", 1)
