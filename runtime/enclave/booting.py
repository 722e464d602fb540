"""What every step of a boot uses, and what it tells: the workers that serve, what they serve, and whether clients are let in."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from runtime.enclave.process.workers import Worker, WorkerFailed
from runtime.enclave.readiness import Readiness
from runtime.enclave.run import Ground
from runtime.protocol.worker_link import Identities, LinkIsUp, Ready, Role, Watch, WorkerIdentity


@dataclass(slots=True, kw_only=True)
class Boot(Ground):
    """The ground of a boot, and more.

    `workers` are those that serve, in the order in which they are drained; `identities` what they serve.
    """

    workers: list[Worker] = field(default_factory=list)
    public: list[trio.SocketListener] = field(default_factory=list)
    identities: tuple[WorkerIdentity, ...] = ()
    drain_reserve: float = 0.0
    worker_failure: WorkerFailed | None = None
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        self.readiness = Readiness(self._tell_readiness)

    def tell(self, role: Role, message: Ready | Watch | LinkIsUp | Identities) -> None:
        """A message to every worker of a role."""
        for worker in self.workers:
            if worker.role == role:
                worker.tell(message)

    def _tell_readiness(self, is_ready: bool, reason: str) -> None:
        self.tell("ingress", Ready(is_ready))
        if is_ready:
            self.journal.end()
        if not self.stop.asked.is_set():
            self.link.send_state("starting" if not is_ready else "degraded" if reason else "ready", reason)

    def serve(self, identities: Sequence[WorkerIdentity]) -> None:
        """From now on workers serve these, those that are started later too."""
        self.identities = tuple(identities)
        if identities:
            self.tell("ingress", Identities(self.identities))
