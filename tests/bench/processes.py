"""Processes that are measured: their CPU and memory from /proc, their start and their end."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.figures import BenchError

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_QUIET_NS = 1_000_000
_SETTLE_SECONDS = 10.0


def cpu_ns(pids: Sequence[int]) -> int:
    """Nanoseconds of CPU that the processes have used, in user space and in the kernel, threads included. Raises `BenchError`.

    The clock of another process, see clock_getcpuclockid(3): /proc/PID/stat counts in ticks of 10 ms.
    """
    try:
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)
    except OSError as error:
        raise BenchError(f"one of the processes {list(pids)} has ended") from error


def pss_kib(pids: Sequence[int]) -> int:
    """KiB of memory, pages that are shared counted in part. Raises `BenchError`."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError as error:
            raise BenchError(f"the memory of process {pid} cannot be read: {error.strerror}") from error
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


def settle(pids: Sequence[int]) -> None:
    """Waits until the processes have nothing left to do: for the tail of a measurement, and so that none falls into the next one."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    before = cpu_ns(pids)
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        now = cpu_ns(pids)
        if now - before < _QUIET_NS:
            return
        before = now


def children(pid: int) -> list[int]:
    """Of its first thread."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path) -> None:
    """Raises `BenchError` when the process ends, or the condition does not come."""
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-500:].strip() if log.exists() else ""
            raise BenchError(f"{what} did not start: {said}")
        time.sleep(_POLL_SECONDS)


@contextmanager
def started(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None, speaks: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block, by SIGTERM; its output goes to `log`. With `speaks` its standard input is ours, and so is
    its standard output, and it is told of its end by the end of its input."""
    pipe = subprocess.PIPE if speaks else None
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=pipe or subprocess.DEVNULL, stdout=pipe or out, stderr=out, env=environment, bufsize=0
        )
    try:
        yield process
    finally:
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        else:
            process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def read_line(process: subprocess.Popen[bytes], what: str, log: Path) -> str:
    """The next line that a process says. Raises `BenchError` when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(_STOP_SECONDS)
        raise BenchError(f"{what} ended: {log.read_text(errors='replace')[-500:].strip()}")
    return line.decode().strip()


def raise_descriptor_limit(wanted: int) -> int:
    """How many descriptors this process and those that it starts may have from now on: `wanted`, or what may be had."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (max(wanted, hard), hard):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def own_processor() -> int | None:
    """Sets one processor apart for subjects: this process, and what it starts from now on, runs on the others. None if there is one only.

    Neither a load generator nor the upstream then takes turns with what is measured, and nothing moves between caches.
    """
    available = os.sched_getaffinity(0)
    if len(available) < 2:
        return None
    apart = max(available)
    os.sched_setaffinity(0, available - {apart})
    return apart


def pin(pids: Sequence[int], processor: int) -> None:
    """Lets processes run there alone."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {processor})


def end_on_sigterm() -> None:
    """As if it were an interrupt, so that what was started is ended."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
