"""Whether clients' requests are let in: when every process is ready, and nothing about the machine speaks against it."""

from collections.abc import Callable


class Readiness:
    """`on_change` gets whether requests are let in and a reason: of the machine, when only that is why they are not; why renewals
    fail, when they are let in all the same."""

    def __init__(self, on_change: Callable[[bool, str], None]) -> None:
        self._on_change = on_change
        self._are_processes_ready = False
        self._guards: dict[str, str] = {}
        self._degraded = ""
        self._told = (False, "")

    @property
    def is_ready(self) -> bool:
        """Whether requests are let in."""
        return self._are_processes_ready and not self._guards

    def processes(self, are_ready: bool) -> None:
        """Every process is up and ready, or one is not any more."""
        self._are_processes_ready = are_ready
        self._tell()

    def hold(self, guard: str, reason: str) -> None:
        """What `guard` has against it: a word that is told to the parent, or "" for nothing."""
        if reason:
            self._guards[guard] = reason
        else:
            self._guards.pop(guard, None)
        self._tell()

    def degrade(self, reason: str) -> None:
        """Why what was released cannot be renewed now, "" when it can. Requests are let in all the same."""
        self._degraded = reason
        self._tell()

    def _tell(self) -> None:
        reason = next(iter(self._guards.values()), self._degraded) if self._are_processes_ready else ""
        told = (self.is_ready, reason)
        if told != self._told:
            self._told = told
            self._on_change(*told)
