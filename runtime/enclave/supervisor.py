"""Runs the customer's processes: in order, each when what it comes after is ready; again when they fail, within a budget; down in
reverse order. Runs in PID 1 and knows nothing of secrets but that they are handed on.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from runtime.enclave.config import EnclaveConfig, Process, start_order
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.customer import Customer, Ended, OnLine, SpawnFailed, spawn
from runtime.enclave.process.ready import follow_readiness
from runtime.enclave.process.reaper import Reaper
from runtime.protocol.bundle import Secret
from runtime.protocol.errors import Refused
from runtime.protocol.link_values import JournalFields

_PAUSE_LEAST = 0.1
_PAUSE_MOST = 30.0

Note = Callable[[str, JournalFields], None]


class CustomerFailed(Exception):
    """The processes cannot go on; `reason` is a stable code, `status` what the enclave exits with."""

    def __init__(self, reason: str, detail: str, status: int = 1) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who is told: `note` of events, `on_line` of output, `on_exit` of every end of a run, `on_ready` whether all are ready.

    `watch` is asked to begin, or to end, to ask a process over HTTP or TCP whether it is ready; the answers come to `Supervisor.probed`.
    """

    note: Note
    on_line: OnLine
    on_exit: Callable[[str, Ended], None]
    on_ready: Callable[[bool], None]
    watch: Callable[[str, bool], None]


@dataclass(slots=True)
class _Run:
    """One process and where it stands. `settled`: it became ready once, or never will."""

    process: Process
    customer: Customer | None = None
    is_ready: bool = False
    settled: trio.Event = field(default_factory=trio.Event)
    ended: deque[float] = field(default_factory=deque)


class Supervisor:
    """All processes of one enclave. `api` is the local attestation API's URL, for their environment."""

    def __init__(
        self, config: EnclaveConfig, image: ImageConfig, secrets: Mapping[str, Secret], *, api: str, hooks: Hooks, reaper: Reaper
    ) -> None:
        self._config = config
        self._image = image
        self._secrets = secrets
        self._api = api
        self._hooks = hooks
        self._reaper = reaper
        self._runs = {process.name: _Run(process) for process in start_order(config.process)}
        self._stop_asked = trio.Event()
        self._status = 0

    @property
    def is_ready(self) -> bool:
        """Whether every process is up and ready."""
        return not self._stop_asked.is_set() and all(run.is_ready for run in self._runs.values())

    @property
    def watched(self) -> tuple[str, ...]:
        """The running processes that somebody else asks whether they are ready."""
        return tuple(name for name, run in self._runs.items() if run.customer is not None and _is_watched(run.process))

    def probed(self, process: str, is_ready: bool) -> None:
        """The answer of a watched process. A word about one that is not watched now comes too late, and is passed over."""
        if process in self.watched:
            self._set_ready(self._runs[process], is_ready)

    async def run(self) -> int:
        """Runs until every process has ended by itself, or `stop` was called; gives the exit status of the first process in the file.

        Raises `CustomerFailed` when a process fails for good; every other one has been stopped then.
        """
        failures: list[CustomerFailed] = []
        async with trio.open_nursery() as nursery:
            for run in self._runs.values():
                nursery.start_soon(self._keep_running, run, failures)
                with trio.move_on_after(self._config.health.start_timeout) as patience:
                    await run.settled.wait()
                if patience.cancelled_caught:
                    failures.append(CustomerFailed("ready_timeout", f"process {run.process.name} did not become ready"))
                    await self.stop()
                if self._stop_asked.is_set():
                    break
        if failures:
            raise failures[0]
        return self._status

    async def stop(self, deadline: float = math.inf) -> None:
        """TERM in the reverse order of the start, each with its own grace but not beyond `deadline`, then KILL. Safe to call again."""
        self._stop_asked.set()
        self._hooks.on_ready(False)
        for run in reversed(self._runs.values()):
            if run.customer is not None:
                self._hooks.note("process_stopping", {"process": run.process.name})
                await run.customer.stop(max(0.0, min(run.process.stop_grace, deadline - trio.current_time())))

    async def _keep_running(self, run: _Run, failures: list[CustomerFailed]) -> None:
        try:
            while not self._stop_asked.is_set():
                ended = await self._run_once(run)
                if run.process is self._config.process[0]:
                    self._status = ended.status
                if self._stop_asked.is_set() or not self._is_restarted(run, ended):
                    return
                await self._pause(run)
        except CustomerFailed as error:
            failures.append(error)
            await self.stop()
        except (SpawnFailed, Refused) as error:
            failures.append(CustomerFailed(error.reason, f"process {run.process.name}: {error.detail}"))
            await self.stop()
        finally:
            run.settled.set()

    async def _run_once(self, run: _Run) -> Ended:
        process = run.process
        start = partial(spawn, process, self._config, self._image, self._secrets, api=self._api)
        async with self._reaper.owning(start) as customer:
            run.customer = customer
            self._hooks.note("process_started", {"process": process.name, "pid": customer.pid})
            if self._stop_asked.is_set():  # while it was being started
                await customer.stop(process.stop_grace)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow_readiness, run)
                    ended = await customer.follow(self._hooks.on_line, self._config.log.max_line_size)
                    nursery.cancel_scope.cancel()
            finally:
                if _is_watched(process):
                    self._hooks.watch(process.name, False)
                run.customer = None
                self._set_ready(run, False)
        self._hooks.on_exit(process.name, ended)
        return ended

    async def _follow_readiness(self, run: _Run) -> None:
        ready = run.process.ready
        if ready is None:
            self._set_ready(run, True)
        elif ready.exec is None:
            self._hooks.watch(run.process.name, True)
        else:
            ask = partial(self._run_command, run.process, ready.exec)
            await follow_readiness(ready, ask, partial(self._set_ready, run))

    def _set_ready(self, run: _Run, is_ready: bool) -> None:
        if run.is_ready == is_ready:
            return
        run.is_ready = is_ready
        run.settled.set()
        self._hooks.note("process_ready" if is_ready else "process_not_ready", {"process": run.process.name})
        self._hooks.on_ready(self.is_ready)

    async def _run_command(self, process: Process, command: tuple[str, ...]) -> bool:
        """A readiness command runs as the process does, without its secrets."""
        probe = replace(process, command=command, secrets=())
        try:
            async with self._reaper.owning(partial(spawn, probe, self._config, self._image, {}, api=self._api)) as customer:
                try:
                    return not (await customer.follow(lambda *_: None, self._config.log.max_line_size)).is_failure
                finally:
                    with trio.CancelScope(shield=True):
                        await customer.stop(0)
        except SpawnFailed:
            return False

    def _is_restarted(self, run: _Run, ended: Ended) -> bool:
        """Whether it runs again. Raises `CustomerFailed` when it failed and must not, or has failed too often."""
        process, limits = run.process, self._config.limits
        if process.restart == "never" or (process.restart == "on-failure" and not ended.is_failure):
            if ended.is_failure:
                raise CustomerFailed("process_failed", f"process {process.name} ended with {ended.status}", ended.status)
            return False
        now = trio.current_time()
        run.ended.append(now)
        while run.ended[0] < now - limits.restart_window:
            run.ended.popleft()
        if len(run.ended) > limits.restarts:
            raise CustomerFailed("restart_budget", f"process {process.name} ended {len(run.ended)} times", ended.status or 1)
        return True

    async def _pause(self, run: _Run) -> None:
        """Exponential, with jitter, so that processes that fail together do not come back together."""
        pause = min(_PAUSE_MOST, _PAUSE_LEAST * 2 ** (len(run.ended) - 1))
        with trio.move_on_after(pause * (0.5 + random.random() / 2)):  # noqa: S311 - jitter needs no secrecy
            await self._stop_asked.wait()


def _is_watched(process: Process) -> bool:
    return process.ready is not None and process.ready.exec is None
