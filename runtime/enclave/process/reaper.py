"""Reaps what nobody else waits for: the orphans that PID 1, or a child subreaper, inherits.

One rule: peek (`WNOWAIT`), and leave alone the pids that somebody here owns; else their status would be lost and a crash be reported
as a clean exit (tini and trio have the same trap, from two sides).
"""

import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol, TypeVar

import trio

from runtime.enclave.process.descendants import descendants
from runtime.enclave.shortage import PAUSE_LEAST

_EVERYBODY = -1  # to PID 1, kill(2) means by this all processes of its namespace but itself
_BATCH = 100
_PAUSE_SECONDS = 0.01
_KILLED_SECONDS = 5.0


class _HasPid(Protocol):
    @property
    def pid(self) -> int: ...


T = TypeVar("T", bound=_HasPid)


class Reaper:
    """The one that waits for any child. `run` it in a nursery of the main thread, and start children inside `owning`."""

    def __init__(self) -> None:
        self._owned: set[int] = set()
        self._starting = 0
        self._look_again = trio.Event()
        self._looked = trio.Event()

    @asynccontextmanager
    async def owning(self, start: Callable[[], Awaitable[T]]) -> AsyncGenerator[T]:
        """The child that `start` gives, its status safe until the block ends. While it starts, its pid unknown, nothing is reaped."""
        self._starting += 1
        try:
            child = await start()
            self._owned.add(child.pid)
        finally:
            self._starting -= 1
            self._look_again.set()
        try:
            yield child
        finally:
            self._owned.discard(child.pid)
            self._look_again.set()

    async def run(self, at_signal: Callable[[], None] = lambda: None) -> None:
        """Reaps now, at every SIGCHLD, and when an owned zombie, which hides others, may have gone.

        `at_signal` is called now and at every SIGCHLD.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._on_look_again)
            with trio.open_signal_receiver(signal.SIGCHLD) as signals:
                self._reap()
                at_signal()
                async for _ in signals:
                    self._reap()
                    at_signal()

    async def end_others(self, grace: float) -> None:
        """Ends every process below this one that is nobody's, and not below an owned one: TERM, and KILL after `grace` seconds.

        Returns when they are gone; what the kernel itself cannot end (proc_pid_stat(5), state D) is given up after 5 seconds more.
        """
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILLED_SECONDS)):
            with trio.move_on_after(seconds):
                await self._tell_others(number)
                return

    async def _tell_others(self, number: signal.Signals) -> None:
        """One signal to each of them, those included that are born meanwhile, until none is left."""
        told: set[int] = set()
        while True:
            if not self._starting:
                try:
                    others = self._others()
                except OSError:  # without a descriptor for /proc nobody can say who is there
                    await trio.sleep(PAUSE_LEAST)
                    continue
                if not others:
                    return
                for pid in others - told:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
                        os.kill(pid, signal.SIGCONT)  # a stopped process hears nothing
                told = others
            await self._looked.wait()
            await trio.sleep(_PAUSE_SECONDS)

    def _others(self) -> set[int]:
        if self._owned or os.getpid() != 1:
            return descendants(os.getpid(), spared=self._owned)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return set()
        return {_EVERYBODY}

    async def _on_look_again(self) -> None:
        while True:
            await self._look_again.wait()
            self._look_again = trio.Event()
            self._reap()

    def _reap(self) -> None:
        """Reaps the zombies up to the first that is owned; in batches, for orphans may end as fast as they are reaped."""
        self._looked.set()
        self._looked = trio.Event()
        for _ in range(_BATCH):
            if self._starting:
                return
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._owned:
                return
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
        self._look_again.set()
