"""From the start of the first process to the end of the machine: what is there before anything else, so that every failure is heard of.

Runs in PID 1. Loads little: the first record is on its way to the parent while the rest of the runtime (boot.py) is being loaded.
"""

import os
import secrets
import sys
from dataclasses import dataclass, field
from importlib import import_module

import trio

from runtime.enclave.link import ParentLink
from runtime.enclave.log import BootJournal, reason_of
from runtime.enclave.metrics import Metrics
from runtime.enclave.platform import Machine
from runtime.enclave.process.fork_server import ForkServer
from runtime.enclave.process.forwarding import Forwarding
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process_age import process_age
from runtime.enclave.stop import Stop, stop_on_signal
from runtime.net.endpoint import connect
from runtime.protocol.link_values import JournalFields, Level

CONTROL_PORT = 9001
FLUSH_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class Ground:
    """What is there from the first moment to the last."""

    machine: Machine
    link: ParentLink
    nursery: trio.Nursery
    reaper: Reaper
    fork_server: ForkServer
    boot_id: bytes
    journal: BootJournal
    stop: Stop
    metrics: Metrics
    signals: Forwarding = field(default_factory=Forwarding)
    parent_met: trio.Event = field(default_factory=trio.Event)

    def note(self, event: str, fields: JournalFields, level: Level = "info") -> None:
        """A line of the boot journal."""
        self.journal.event(event, fields, level=level)


async def run(machine: Machine) -> int:
    """Boots, runs until the customer's processes have ended or a stop is asked for, and gives the exit status."""
    stop = Stop()
    boot_id = secrets.token_bytes(16)
    metrics = Metrics()
    link = ParentLink(
        lambda: connect(machine.parent(CONTROL_PORT)),
        boot_id=boot_id,
        on_drain=lambda ms: stop.ask(ms / 1000),
        metrics=metrics.read,
    )
    reaper = Reaper()
    async with trio.open_nursery() as nursery:
        ground = Ground(
            machine=machine,
            link=link,
            nursery=nursery,
            reaper=reaper,
            fork_server=ForkServer(reaper),
            boot_id=boot_id,
            journal=BootJournal(link.journal, age=process_age()),
            stop=stop,
            metrics=metrics,
        )
        ground.journal.begin("load")
        link.send_state("booting")
        ground.note("boot.started", {"pid_one": int(os.getpid() == 1), "uid": os.getuid(), "boot_id": boot_id})
        nursery.start_soon(stop_on_signal, stop)
        nursery.start_soon(ground.signals.run)
        nursery.start_soon(reaper.run)
        nursery.start_soon(ground.fork_server.run, ground.note)
        nursery.start_soon(_keep_link, link, ground.parent_met)
        status = await _boot_and_serve(ground)
        link.finish_logs()
        with trio.move_on_after(FLUSH_SECONDS):
            await link.flush()
        if not ground.parent_met.is_set():
            _tell_console(ground.journal.last())
        nursery.cancel_scope.cancel()
    machine.end()
    return status


async def _boot_and_serve(ground: Ground) -> int:
    """The exit status; the last state has been reported then."""
    await trio.to_thread.run_sync(import_module, "runtime.enclave.boot")  # in a thread, so that the link comes up meanwhile
    from runtime.enclave import boot
    from runtime.enclave.supervisor import CustomerFailed

    try:
        status = await boot.boot_and_serve(ground)
        ground.link.send_state("stopped")
    except boot.FAILURES as error:
        status = error.status if isinstance(error, CustomerFailed) else 1
        text, reason = str(error), reason_of(error)
        _tell_console([text if text.endswith(f"[{reason}]") else f"{text} [{reason}]"])
        stage: dict[str, str] = {} if ground.journal.stage is None else {"stage": ground.journal.stage}
        ground.note("boot.failed", {"reason": reason, **stage}, "error")
        ground.link.send_state("failed", reason)
    return status


def _tell_console(lines: list[str]) -> None:
    """The machine's console, which only a debug enclave has."""
    for line in "\n".join(lines).splitlines():
        sys.stderr.write(f"enclave: {line}\n")
    sys.stderr.flush()


async def _keep_link(link: ParentLink, met: trio.Event) -> None:
    """From the first moment, so that the parent hears of whatever fails."""
    await link.connect()
    met.set()
    await link.run()
