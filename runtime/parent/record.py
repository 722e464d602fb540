"""What the parent remembers of the enclave's present boot, for health checks and for people. All of it is the enclave's word.

Every list is bounded and every word is one of a closed vocabulary, or escaped by whoever shows it.
"""

from collections import deque
from dataclasses import dataclass, field

from runtime.protocol.link import Exit, Journal, Sequenced, State
from runtime.protocol.link_values import STAGES

STATES_KEPT = 32
EXITS_KEPT = 16
FRESH_SECONDS = 15.0
"""How long the last word of a ready enclave counts. It is pinged every 5 s."""

OVER = frozenset({"stopped", "failed"})
CLOSING = OVER | {"draining"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the boot that ended: milliseconds since the enclave's first process started, and how many of them it took."""

    name: str
    ended_ms: int
    took_ms: int


@dataclass(slots=True, kw_only=True)
class Boot:
    """One boot. Times are trio's; states and exits stand beside the seconds that had passed since the parent first heard of it."""

    boot_id: bytes
    began: float
    heard: float
    since: float
    has_ticket: bool = False
    last_sequence: int = 0
    dropped: int = 0
    state: str = "booting"
    reason: str = ""
    was_ready: bool = False
    failed_stage: str | None = None
    stages: dict[str, Stage] = field(default_factory=dict)
    states: deque[tuple[float, State]] = field(default_factory=lambda: deque(maxlen=STATES_KEPT))
    exits: deque[tuple[float, Exit]] = field(default_factory=lambda: deque(maxlen=EXITS_KEPT))

    @property
    def is_over(self) -> bool:
        """Whether the enclave has said its last word."""
        return self.state in OVER

    def take(self, message: Sequenced, now: float) -> None:
        """A report that was not seen before."""
        match message:
            case State(name=name, reason=reason):
                if name != self.state:
                    self.since = now
                self.state, self.reason = name, reason
                self.was_ready = self.was_ready or name in ("ready", "degraded")
                self.states.append((now - self.began, message))
            case Exit():
                self.exits.append((now - self.began, message))
            case Journal(event="stage.ended", fields={"stage": str(stage), "elapsed_ms": int(ended), "took_ms": int(took)}):
                if stage in STAGES:
                    self.stages[stage] = Stage(stage, max(0, ended), max(0, took))
            case Journal(event="boot.failed", fields={"stage": str(stage)}) if stage in STAGES:
                self.failed_stage = stage
            case _:
                pass
