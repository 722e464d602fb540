"""A first process, its link and a parent around one real process that writes without end; prints what it cost as a JSON object.

    python -m tests.enclave.logs.flood WAY MEBIBYTES

WAY is `zeros` (no line end ever), `newlines`, or `stuck` (zeros, and a parent that reads nothing).
"""

import json
import math
import resource
import sys
import time
from dataclasses import asdict, dataclass

import trio

from runtime.enclave.link import ParentLink
from runtime.enclave.logs.output import open_logs
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.link import Ack, Journal, Log, Message
from tests.enclave.process.running import config_of, start
from tests.support.link_ends import BOOT_ID, SpokenParent, sequences
from tests.support.sockets import Wire

WRITERS = {
    "zeros": "exec dd if=/dev/zero bs=1M count={count} status=none",
    "stuck": "exec dd if=/dev/zero bs=1M count={count} status=none",
    "newlines": "yes '' | exec dd iflag=fullblock bs=1M count={count} status=none",
}
WARM = 100
"""Lines of standard error that came first."""
SECRETS = {f"S{number}": Secret(delivery="env", value=SecretValue(b"a secret of %030d" % number)) for number in range(20)}


@dataclass(slots=True)
class Cost:
    """`turn`: the longest that anything kept the loop, in seconds of CPU; `lag`: the longest that the loop was late for a timer, which is
    also a matter of who else uses the machine. `ticks`: events that the parent got, of those that were `journalled`."""

    seconds: float = 0.0
    cpu: float = 0.0
    grown_kib: int = 0
    turn: float = 0.0
    lag: float = 0.0
    ticks: int = 0
    journalled: int = 0
    lines: int = 0
    dropped: int = 0
    limited: int = 0


class _Turns(trio.abc.Instrument):
    """Measures each step of each task."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._began = math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._cost.turn = max(self._cost.turn, time.thread_time() - self._began)


async def measure(way: str, count: int) -> Cost:
    cost = Cost()
    config = config_of(["/bin/sh", "-c", WRITERS[way].format(count=count)])

    def take(message: Message) -> None:
        match message:
            case Log(dropped=dropped):
                cost.lines += 1
                cost.dropped += dropped
            case Journal(event="tick"):
                cost.ticks += 1
            case Journal(event="log.limited"):
                cost.limited += 1
            case Journal(event="log.dropped", fields=fields):
                cost.dropped += int(fields["lines"])
            case _:
                pass

    async def parent(stream: trio.SocketStream) -> None:
        end = SpokenParent(stream)
        await end.welcome()
        if way == "stuck":
            wire.handler = reading
            await trio.sleep_forever()
        await reading(stream, end)

    async def reading(stream: trio.SocketStream, end: SpokenParent | None = None) -> None:
        if end is None:
            end = SpokenParent(stream)
            await end.welcome()
        while (message := await end.receive()) is not None:
            take(message)
            await end.send(*(Ack(sequence=sequence) for sequence in sequences([message])))

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.02
            await trio.sleep(0.02)
            cost.lag = max(cost.lag, time.perf_counter() - due)
            link.journal("info", "tick")
            cost.journalled += 1

    async with trio.open_nursery() as nursery:
        wire = Wire(nursery, parent)
        link = ParentLink(wire.connect, boot_id=BOOT_ID, on_drain=lambda _: None)
        logs = open_logs(config, SECRETS, link, boot_id=BOOT_ID)
        logs.open("app", "stderr").feed(b"warm\n" * WARM)
        await link.connect()
        nursery.start_soon(link.run)
        customer = await start(config)
        before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        began = time.perf_counter()
        turns = _Turns(cost)
        trio.lowlevel.add_instrument(turns)
        async with trio.open_nursery() as ticking:
            ticking.start_soon(tick)
            ended = await customer.follow(logs.open)
            ticking.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(turns)
        assert ended.code == 0, ended
        cost.seconds, cost.cpu = time.perf_counter() - began, time.process_time() - cpu
        cost.grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        await customer.aclose()
        link.finish_logs()
        if way == "stuck":
            await link.aclose()
        else:
            await link.flush()
        nursery.cancel_scope.cancel()
    return cost


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(trio.run(measure, sys.argv[1], int(sys.argv[2])))) + "\n")
