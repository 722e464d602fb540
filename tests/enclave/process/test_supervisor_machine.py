"""The supervisor against everything that processes may do, in any order: a state machine over processes that are none.

Time is a mock clock's. A rule is done when every task of the supervisor waits again; then the invariants must hold.
"""

import dataclasses
import math
import queue
import signal
from collections.abc import Callable
from functools import partial

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from runtime.enclave.config import Health, Limits, Process, Ready
from runtime.enclave.supervisor import CustomerFailed
from runtime.net.endpoint import Tcp
from tests.enclave.process.fakes import FakeProcess, Fakes, config_with

NAMES = ("a", "b", "c", "d")
PATIENCE = 20.0
WINDOW = 50.0
GRACE = 10.0
ENDS = ((0, None), (1, None), (77, None), (None, int(signal.SIGSEGV)))


@st.composite
def processes(draw: st.DrawFn) -> tuple[Process, ...]:
    """One to four, each after any of those before it, in any order."""
    made = []
    for index in range(draw(st.integers(1, len(NAMES)))):
        is_job = draw(st.booleans())
        made.append(
            Process(
                name=NAMES[index],
                kind="job" if is_job else "service",
                command=("run",),
                after=tuple(draw(st.sets(st.sampled_from(NAMES[:index])))) if index else (),
                restart=draw(st.sampled_from(["never", "on-failure"] if is_job else ["never", "on-failure", "always"])),
                ready=None if is_job or draw(st.booleans()) else Ready(tcp=Tcp("127.0.0.1", 1)),
                pre_stop=("leave",) if draw(st.booleans()) else None,
                stop_grace=draw(st.sampled_from([0.0, 1.0, GRACE])),
            )
        )
    return tuple(draw(st.permutations(made)))


class SupervisorMachine(RuleBasedStateMachine):
    """Rules are what processes, probes, time and the parent do."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = MockClock()
        self.ticks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.token: trio.lowlevel.TrioToken | None = None
        self.objection: BaseException | None = None
        self.is_over = False
        self.stopped_by = math.inf
        self.is_stopping = False
        self.ready_once: set[str] = set()
        self.launches: dict[str, list[float]] = {name: [] for name in NAMES}
        self.now = 0.0

    @initialize(made=processes(), restarts=st.integers(0, 3))
    def begin(self, made: tuple[Process, ...], restarts: int) -> None:
        config = dataclasses.replace(
            config_with('name = "app"'),
            process=made,
            limits=Limits(restarts=restarts, restart_window=WINDOW),
            health=Health(start_timeout=PATIENCE),
        )
        self.after = {process.name: process.after for process in made}
        self.by_name = {process.name: process for process in made}
        self.fakes = Fakes(config, on_launch=self.launching, on_signal=self.signalling)
        trio.lowlevel.start_guest_run(
            self.main,
            run_sync_soon_threadsafe=self.ticks.put,
            done_callback=self.done,
            clock=self.clock,
            strict_exception_groups=True,
        )
        self.tick_until(lambda: self.token is not None)
        self.settle()

    # The loop.

    async def main(self) -> None:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self.fakes.run)
            self.token = trio.lowlevel.current_trio_token()
            await trio.sleep_forever()

    def done(self, outcome: object) -> None:
        self.is_over = True

    def tick_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self.ticks.get(timeout=30)()

    def settle(self, action: Callable[[], object] = lambda: None) -> None:
        """Does something inside, and lets every task come to rest."""
        is_done = False

        async def rest() -> None:
            nonlocal is_done
            action()
            await wait_all_tasks_blocked()
            is_done = True
            self.now = trio.current_time()

        assert self.token is not None
        self.token.run_sync_soon(lambda: self.nursery.start_soon(rest))
        self.tick_until(lambda: is_done)
        if self.objection is not None:
            raise self.objection

    # What must hold in the very moment.

    def launching(self, process: Process) -> None:
        if process.command != self.by_name[process.name].command:
            return
        try:
            assert self.fakes.alive(process.name) is None
            assert not self.fakes.supervisor._stop_asked.is_set(), "nothing is started once a stop was asked for"
            assert all(self.was_ready(name) for name in process.after)
            now = trio.current_time()
            self.launches[process.name].append(now)
            restarts = [at for at in self.launches[process.name][1:] if at > now - WINDOW]
            assert len(restarts) <= self.fakes.config.limits.restarts + 1, "one begun before the window may be launched within it"
        except AssertionError as error:
            self.objection = error

    def signalling(self, process: FakeProcess, number: int) -> None:
        if process.command != self.by_name[process.name].command:
            return
        later = [name for name, after in self.after.items() if process.name in after]
        if any(self.fakes.alive(name) is not None for name in later):
            self.objection = AssertionError(f"{process.name} was stopped before what comes after it")

    def was_ready(self, name: str) -> bool:
        return ("process_ready", name) in self.fakes.events("process_ready")

    # Rules.

    def alive(self, name: str) -> FakeProcess | None:
        return self.fakes.alive(name) if name in self.by_name else None

    @rule(name=st.sampled_from(NAMES), how=st.sampled_from(ENDS))
    def a_process_ends(self, name: str, how: tuple[int | None, int | None]) -> None:
        if (running := self.alive(name)) is not None:
            self.settle(partial(running.end, *how))

    @rule(code=st.sampled_from([0, 1]))
    def a_command_ends(self, code: int) -> None:
        commands = [run for run in self.fakes.launched if run.command == ("leave",) and run.ended is None]
        for run in commands:
            self.settle(partial(run.end, code))

    @rule(name=st.sampled_from(NAMES), is_ready=st.booleans())
    def a_probe_answers(self, name: str, is_ready: bool) -> None:
        self.settle(partial(self.fakes.supervisor.probed, name, is_ready))

    @rule(name=st.sampled_from(NAMES))
    def a_program_is_missing_from_now_on(self, name: str) -> None:
        self.fakes.refused.add(name)

    @rule(seconds=st.sampled_from([0.06, 0.1, 1.0, 5.0, GRACE, PATIENCE, WINDOW]))
    def time_passes(self, seconds: float) -> None:
        self.settle(partial(self.clock.jump, seconds))

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 30.0, math.inf]))
    def the_parent_asks_for_a_stop(self, seconds: float) -> None:
        self.is_stopping = True
        self.stopped_by = min(self.stopped_by, self.now + seconds)
        self.settle(lambda: self.nursery.start_soon(self.fakes.supervisor.stop, self.stopped_by))

    # What must hold after each.

    @precondition(lambda self: self.token is not None)
    @invariant()
    def never_two_runs_of_one_process(self) -> None:
        for name in self.by_name:
            self.fakes.alive(name)

    @precondition(lambda self: self.token is not None)
    @invariant()
    def ready_means_every_service_and_every_job(self) -> None:
        if self.fakes.supervisor.is_ready:
            assert not self.is_stopping
            assert self.fakes.outcome is None or not isinstance(self.fakes.outcome, CustomerFailed)
            for name, process in self.by_name.items():
                assert self.was_ready(name)
                assert (self.fakes.alive(name) is None) == (process.kind == "job")

    @precondition(lambda self: self.token is not None)
    @invariant()
    def a_deadline_is_the_end(self) -> None:
        if self.now >= self.stopped_by:
            assert self.fakes.outcome is not None

    @precondition(lambda self: self.token is not None)
    @invariant()
    def the_end_is_the_end(self) -> None:
        if self.fakes.outcome is not None:
            assert all(run.ended is not None for run in self.fakes.launched)

    @precondition(lambda self: self.token is not None)
    @invariant()
    def every_end_of_a_run_is_told_once(self) -> None:
        runs = [run for run in self.fakes.launched if run.command == ("run",) and run.ended is not None]
        assert len(self.fakes.exits) == len(self.fakes.events("process.exited")) == len(runs)

    def teardown(self) -> None:
        if self.token is None:
            return
        try:
            self.settle(lambda: self.nursery.start_soon(self.fakes.supervisor.stop))
            for _ in self.by_name:  # the longest chain: each has its grace, one after the other
                self.settle(partial(self.clock.jump, GRACE))
            assert self.fakes.outcome is not None, "a stop always comes to its end"
            self.the_end_is_the_end()
            heard = {run.name: run.heard for run in self.fakes.launched if run.command == ("run",)}
            assert all(int(signal.SIGTERM) in numbers for numbers in heard.values() if int(signal.SIGKILL) in numbers)
        finally:
            self.token.run_sync_soon(self.nursery.cancel_scope.cancel)
            self.tick_until(lambda: self.is_over)


TestSupervisorMachine = SupervisorMachine.TestCase
TestSupervisorMachine.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
