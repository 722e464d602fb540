"""slowhttptest in its four modes: slow heads, slow bodies, slow readers, absurd ranges, while a good client asks all the time.

When a slow one is gone is what the worker says, whose descriptors they hold: the parent may still be handing out what it has in its
buffers, as slowly as that client takes it.
"""

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.conformance.good_client import asking
from tests.conformance.launcher import NAME
from tests.conformance.outcome import Check
from tests.conformance.target import Target, descriptors, running
from tests.conformance.tools import note

CONNECTIONS = 400
GOOD_WORST_MS = 5000.0
"""No matter of speed: a client that is served waits less than that on any machine."""
_OF_OTHERS = 16
"""Descriptors of the good client and of kept connections to the customer's program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One run: slowhttptest's arguments, the path, how long it lasts at most, and after how many seconds the worker is rid of them.

    With `gone` None they may stay: each moves on within every deadline.
    """

    name: str
    arguments: tuple[str, ...]
    path: str
    seconds: int
    gone: float | None


ATTACKS = (
    Attack(name="-H, a header each 5 s", arguments=("-H", "-i", "5"), path="/", seconds=60, gone=20),
    Attack(name="-R, 2 000 ranges", arguments=("-R",), path="/keep", seconds=60, gone=20),
    Attack(name="-B, a piece of body each 45 s", arguments=("-B", "-i", "45"), path="/sink", seconds=100, gone=50),
    Attack(name="-B, a piece of body each 5 s", arguments=("-B", "-i", "5"), path="/sink", seconds=60, gone=None),
    Attack(
        name="-X, 32 bytes read each 5 s",
        arguments=("-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"),
        path="/stream?50000000",
        seconds=120,
        gone=100,
    ),
)


def judge(program: str) -> list[Check]:
    """One check an attack."""
    with running() as target:
        return [_judge(program, target, attack) for attack in ATTACKS]


def _judge(program: str, target: Target, attack: Attack) -> Check:
    note(f"slowhttptest {attack.name}: {attack.seconds} s at most")
    command = [program, *attack.arguments, "-c", str(CONNECTIONS), "-r", "100", "-l", str(attack.seconds), "-p", "5"]
    with asking(target) as served, _held(target) as held:
        finished = subprocess.run(
            [*command, "-u", f"https://{NAME}:{target.port}{attack.path}"], capture_output=True, text=True, check=False
        )
    good = f"{len(served.seconds)} requests, {len(served.failures)} failed, worst {served.worst_ms:.0f} ms"
    is_gone = attack.gone is None or (held.last <= attack.gone and not held.now)
    status = re.findall(r"connected:\s+(\d+)", re.sub(r"\x1b\[[0-9;]*m", "", finished.stdout))
    return Check(
        name=f"{attack.name}, {CONNECTIONS} at once",
        passed=is_gone and not served.failures and served.worst_ms < GOOD_WORST_MS and finished.returncode == 0,
        found="still there at the end" if held.now else f"the last gone after {held.last:.0f} s",
        asked="a good client served" + (f", all gone by {attack.gone:.0f} s" if attack.gone else ", they may stay"),
        notes=(
            f"good client: {good}",
            f"the worker held {held.most} more descriptors at most; connected at the end, as slowhttptest sees it: {status[-1:]}",
            *sorted(set(served.failures)),
        ),
    )


@dataclass(slots=True)
class _Held:
    last: float = 0.0
    """The second in which the worker last held more than it needs for others."""
    most: int = 0
    now: bool = False


@contextmanager
def _held(target: Target) -> Iterator[_Held]:
    """Watches the worker's descriptors."""
    (worker,) = target.workers()
    before, begun, is_over, held = descriptors(worker), time.monotonic(), threading.Event(), _Held()

    def watch() -> None:
        while not is_over.wait(0.2):
            more = descriptors(worker) - before
            held.most = max(held.most, more)
            held.now = more > _OF_OTHERS
            held.last = time.monotonic() - begun if held.now else held.last

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield held
    finally:
        time.sleep(1.0)  # for the last look
        is_over.set()
        thread.join()
