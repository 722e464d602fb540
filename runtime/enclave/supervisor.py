"""Runs the customer's processes: each when those that it comes after are ready, beside those that it does not; again when they fail,
within a budget; down in reverse. Runs in PID 1 and knows nothing of secrets but that they are handed on.
"""

import math
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import trio

from runtime.enclave.config import EnclaveConfig, Process, start_order
from runtime.enclave.logs.discarded import discard
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.cgroups import Cgroup, CgroupUnavailable, make_cgroup
from runtime.enclave.process.customer import Ended, OpenOutput, SpawnFailed, spawn
from runtime.enclave.process.exits import LAST_EXITS, exited_fields, gave_up_fields
from runtime.enclave.process.ready import follow_readiness
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.restarts import Restarts
from runtime.enclave.process.run import Launch, Run
from runtime.enclave.shortage import pause_after
from runtime.protocol.bundle import Secret
from runtime.protocol.errors import Refused
from runtime.protocol.link_values import JournalFields

Note = Callable[[str, JournalFields], None]


class CustomerFailed(Exception):
    """The processes cannot go on; `reason` is a stable code, `status` what the enclave exits with."""

    def __init__(self, reason: str, detail: str, status: int = 1) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who is told: `note` of events, `output` of what they write, `on_exit` of every end of a run, `on_ready` whether all are ready.

    `watch` is asked to begin, or to end, to ask a process over HTTP or TCP whether it is ready; the answers come to `Supervisor.probed`.
    """

    note: Note
    output: OpenOutput
    on_exit: Callable[[str, Ended], None]
    on_ready: Callable[[bool], None]
    watch: Callable[[str, bool], None]


class Supervisor:
    """All processes of one enclave. `api` is the local attestation API's URL, for their environment."""

    def __init__(
        self,
        config: EnclaveConfig,
        image: ImageConfig,
        secrets: Mapping[str, Secret],
        *,
        api: str,
        hooks: Hooks,
        reaper: Reaper,
        launch: Launch = spawn,
    ) -> None:
        self._config = config
        self._image = image
        self._secrets = secrets
        self._api = api
        self._hooks = hooks
        self._reaper = reaper
        self._launch = launch
        limits = config.limits
        self._runs = {
            process.name: Run(process, Restarts(most=limits.restarts, window=limits.restart_window))
            for process in start_order(config.process)
        }
        self._main = next((process for process in config.process if process.kind == "service"), config.process[0])
        self._stop_asked = trio.Event()
        self._deadline = math.inf
        self._failures: list[CustomerFailed] = []
        self._status = 0

    @property
    def is_ready(self) -> bool:
        """Whether every service is up and ready, and every job done."""
        return not self._stop_asked.is_set() and all(run.is_ready for run in self._runs.values())

    @property
    def watched(self) -> tuple[str, ...]:
        """The running processes that somebody else asks whether they are ready."""
        return tuple(name for name, run in self._runs.items() if run.running is not None and _is_watched(run.process))

    @property
    def pids(self) -> dict[str, int]:
        """The running processes, each the leader of its session, by name."""
        return {name: run.running.pid for name, run in self._runs.items() if run.running is not None}

    @property
    def stop_grace(self) -> float:
        """Seconds that the main process has from TERM to KILL."""
        return self._main.stop_grace

    def signal(self, number: int) -> None:
        """Sends a signal to the main process's group, if it runs."""
        self._runs[self._main.name].signal(number)

    def probed(self, process: str, is_ready: bool) -> None:
        """The answer of a watched process. A word about one that is not watched now comes too late, and is passed over."""
        if process in self.watched:
            self._set_ready(self._runs[process], is_ready)

    async def run(self) -> int:
        """Runs until every process has ended by itself, or `stop` was called; gives the exit status of the first service in the file.

        Raises `CustomerFailed` when a process fails for good; every other one has been stopped then.
        """
        async with trio.open_nursery() as nursery:
            for run in self._runs.values():
                nursery.start_soon(self._keep_running, run, nursery)
        if self._failures:
            raise self._failures[0]
        return self._status

    async def stop(self, deadline: float = math.inf) -> None:
        """Each process when all that come after it have ended: `pre_stop`, TERM, and KILL at the end of its grace or at `deadline`.

        Safe to call again; it can only bring the end forward.
        """
        self._start_no_more()
        self._hooks.on_ready(False)
        self._deadline = min(self._deadline, deadline)
        for run in self._runs.values():
            run.limit_grace(self._deadline)
        async with trio.open_nursery() as nursery:
            for run in self._runs.values():
                nursery.start_soon(self._stop_in_turn, run)

    def _start_no_more(self) -> None:
        """What still waits for others to be ready will not start either, and so holds up nobody's stop."""
        self._stop_asked.set()
        for run in self._runs.values():
            run.settled.set()

    async def _stop_in_turn(self, run: Run) -> None:
        for other in self._runs.values():
            if run.process.name in other.process.after:
                await other.finished.wait()
        if run.grace is None and not run.finished.is_set():
            with trio.CancelScope() as run.grace:
                run.limit_grace(min(trio.current_time() + run.process.stop_grace, self._deadline))
                try:
                    if run.running is not None:
                        self._hooks.note("process_stopping", {"process": run.process.name})
                        await self._pre_stop(run)
                finally:  # even where no time is left: it hears of its stop before it is killed
                    run.signal(signal.SIGTERM)
                await run.finished.wait()
            if not run.finished.is_set():
                self._hooks.note("process.killed", {"process": run.process.name, "reason": "grace_over"})
            run.signal(signal.SIGKILL)
        await run.finished.wait()

    async def _pre_stop(self, run: Run) -> None:
        """Never takes the whole grace: the process hears of its stop in time, whatever this does."""
        if run.process.pre_stop is None:
            return
        outcome = "cut"
        try:
            with run.pre_stop:
                outcome = "done" if await self._run_command(run, run.process.pre_stop, self._hooks.output) else "failed"
        finally:
            self._hooks.note("process.pre_stop", {"process": run.process.name, "outcome": outcome})

    async def _keep_running(self, run: Run, nursery: trio.Nursery) -> None:
        try:
            for name in run.process.after:
                await self._runs[name].settled.wait()
            self._require_ready(run.process)
            while not self._stop_asked.is_set():
                ended = await self._run_when_it_can_start(run, nursery)
                if ended is None:
                    return
                if run.process is self._main:
                    self._status = ended.status
                if self._stop_asked.is_set() or (pause := self._pause_before_next(run, ended)) is None:
                    return
                with trio.move_on_after(pause):
                    await self._stop_asked.wait()
        except CustomerFailed as error:
            self._fail(run, error, nursery)
        except (SpawnFailed, Refused) as error:
            self._fail(run, CustomerFailed(error.reason, f"process {run.process.name}: {error.detail}"), nursery)
        finally:
            run.settled.set()
            run.finished.set()

    def _require_ready(self, process: Process) -> None:
        """Raises `CustomerFailed` when something that `process` comes after has ended for good, and never was ready."""
        for name in process.after:
            if not self._runs[name].was_ready and not self._stop_asked.is_set():
                raise CustomerFailed(
                    "dependency_failed", f"process {name} ended before it was ready, and {process.name} waits for it"
                )

    async def _expect_ready(self, run: Run, nursery: trio.Nursery) -> None:
        with trio.move_on_after(self._config.health.start_timeout) as patience:
            await run.settled.wait()
        if patience.cancelled_caught and not self._stop_asked.is_set():
            self._fail(run, CustomerFailed("ready_timeout", f"process {run.process.name} did not become ready"), nursery)

    def _fail(self, run: Run, error: CustomerFailed, nursery: trio.Nursery) -> None:
        self._hooks.note("process.gave_up", gave_up_fields(run.process.name, error.reason, run.exits))
        self._failures.append(error)
        self._start_no_more()
        nursery.start_soon(self.stop)

    async def _run_when_it_can_start(self, run: Run, nursery: trio.Nursery) -> Ended | None:
        """One run; None when a stop came first. What the machine is short of is waited for as long as a process may take to get ready."""
        patience = trio.current_time() + self._config.health.start_timeout
        for attempt in count(1):
            try:
                return await self._run_once(run, nursery)
            except SpawnFailed as error:
                if not error.shortage or trio.current_time() >= patience:
                    raise
                fields: JournalFields = {"process": run.process.name, "reason": error.reason, "errno": error.shortage}
                self._hooks.note("process.start_delayed", fields)
            with trio.move_on_after(pause_after(attempt)):
                await self._stop_asked.wait()
                return None
        raise AssertionError("unreachable: attempts have no end")

    async def _run_once(self, run: Run, outer: trio.Nursery) -> Ended:
        process = run.process
        run.cgroup = self._confine(process)
        try:
            start = partial(self._launch, process, self._config, self._image, self._secrets, api=self._api, cgroup=run.cgroup)
            async with self._reaper.owning(start) as running:
                run.running = running
                self._hooks.note("process_started", {"process": process.name, "pid": running.pid})
                if not run.exits:
                    outer.start_soon(self._expect_ready, run, outer)
                if run.grace is not None:  # its turn to stop came while it was being started
                    running.signal(signal.SIGTERM)
                    if run.grace.cancel_called:
                        running.signal(signal.SIGKILL)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._follow_readiness, run)
                        ended = await running.follow(self._hooks.output, grace=process.stop_grace)
                        nursery.cancel_scope.cancel()
                finally:
                    run.running = None
                    await running.aclose()
        finally:
            if run.cgroup is not None:
                run.cgroup.close()
        self._end_run(run, ended)
        return ended

    def _end_run(self, run: Run, ended: Ended) -> None:
        process = run.process
        if _is_watched(process):
            self._hooks.watch(process.name, False)
        if self._stop_asked.is_set():
            run.pre_stop.cancel()
        run.exits = [*run.exits, ended][-LAST_EXITS:]
        self._hooks.note("process.exited", exited_fields(process.name, ended, restarts=run.restarts.total))
        self._hooks.on_exit(process.name, ended)
        run.healthy = trio.current_time() - run.ready_since if run.is_ready else 0.0
        self._set_ready(run, process.kind == "job" and not ended.is_failure)

    def _confine(self, process: Process) -> Cgroup | None:
        """The control group of a run that has a limit of memory or processes, where the machine has them."""
        if process.memory is None and process.pids is None:
            return None
        try:
            return make_cgroup(process.name, memory=process.memory, pids=process.pids)
        except CgroupUnavailable as error:
            self._hooks.note("cgroup.unavailable", {"process": process.name, "reason": error.reason})
            return None

    async def _follow_readiness(self, run: Run) -> None:
        ready = run.process.ready
        if ready is None:
            self._set_ready(run, run.process.kind == "service")
        elif ready.exec is None:
            self._hooks.watch(run.process.name, True)
        else:
            ask = partial(self._run_command, run, ready.exec, discard)
            await follow_readiness(ready, ask, partial(self._set_ready, run))

    def _set_ready(self, run: Run, is_ready: bool) -> None:
        if run.is_ready == is_ready:
            return
        run.is_ready = is_ready
        if is_ready:
            run.was_ready = True
            run.ready_since = trio.current_time()
            run.settled.set()
        if is_ready:
            self._hooks.note("process_ready", {"process": run.process.name})
        else:
            reason = "ended" if run.running is None else "probe_failed"
            self._hooks.note("process_not_ready", {"process": run.process.name, "reason": reason})
        self._hooks.on_ready(self.is_ready)

    async def _run_command(self, run: Run, command: tuple[str, ...], output: OpenOutput) -> bool:
        """Whether a command ended with 0. It runs as the process does, in its control group, without its secrets."""
        process = replace(run.process, command=command, secrets=())
        start = partial(self._launch, process, self._config, self._image, {}, api=self._api, cgroup=run.cgroup)
        try:
            async with self._reaper.owning(start) as running:
                try:
                    return not (await running.follow(output)).is_failure
                finally:
                    await running.aclose()
        except SpawnFailed:
            return False

    def _pause_before_next(self, run: Run, ended: Ended) -> float | None:
        """Seconds until it runs again, None for never. Raises `CustomerFailed` when it failed and must not, or has failed too often."""
        process = run.process
        if process.restart == "never" or (process.restart == "on-failure" and not ended.is_failure):
            if ended.is_failure:
                detail = f"process {process.name} ended with {ended.status}"
                raise CustomerFailed("job_failed" if process.kind == "job" else "process_failed", detail, ended.status)
            return None
        now = trio.current_time()
        jitter = random.random()  # noqa: S311 - jitter needs no secrecy
        pause = run.restarts.pause(now, healthy=run.healthy, jitter=jitter)
        if pause is None:
            count = run.restarts.most + 1
            raise CustomerFailed("restart_budget", f"process {process.name} ended {count} times", ended.status or 1)
        return pause


def _is_watched(process: Process) -> bool:
    return process.ready is not None and process.ready.exec is None
