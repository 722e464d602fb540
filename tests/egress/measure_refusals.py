"""How fast a process is refused, and what ten thousand short connections cost the egress worker in memory:

    python -m tests.egress.measure_refusals

Starts a machine of the simulator with namespaces, measures inside it, and prints one JSON object.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from runtime.enclave.worker.__main__ import UIDS
from runtime.net.endpoint import Tcp, bound, connect, listen
from runtime.net.serve import serve
from runtime.protocol.egress_frames import Connect
from tests.egress.hellos import hello, sni
from tests.scenarios.machines import local_api, real_world, running_machine, write_script
from tests.scenarios.test_egress import PROCESS
from tests.scenarios.world import SERVER_NAME

RULES = """
[egress]
allow = [{ name = "api.test", ports = [443] }, { name = "db.test", ports = [5432] }]
"""

PROBE = r"""
import json, socket, statistics, subprocess, sys, time
address = socket.getaddrinfo("api.test", 443, socket.AF_INET)[0][4][0]
HELLO = bytes.fromhex(sys.argv[1])


def name():
    socket.getaddrinfo("evil.test", 443)


def port():
    socket.create_connection((address, 444))


def outside():
    socket.create_connection(("192.0.2.1", 443))


def first():
    with socket.create_connection((address, 443)) as stream:
        stream.sendall(HELLO)
        stream.recv(1)


def measured(act):
    times = []
    for _ in range(200):
        begun = time.perf_counter()
        try:
            act()
        except OSError:
            times.append((time.perf_counter() - begun) * 1000)
        else:
            raise AssertionError(act)
    return {"median_ms": round(statistics.median(times), 2), "most_ms": round(max(times), 2)}


found = {act.__name__: measured(act) for act in (name, port, outside, first)}
print(json.dumps(found), flush=True)
database = socket.getaddrinfo("db.test", 5432, socket.AF_INET)[0][4]
for count in (1000, 10000):
    for _ in range(count):
        with socket.create_connection(database) as stream:
            stream.sendall(b"x")
            stream.recv(1)
            stream.shutdown(socket.SHUT_WR)
            stream.recv(1)
    print(count, flush=True)
    time.sleep(2)
"""


def _memory() -> float:
    """MiB of the egress worker that are its own."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.stat().st_uid == UIDS["egress"]:
            fields = dict(line.split(":", 1) for line in (entry / "smaps_rollup").read_text().splitlines()[1:])
            return round(sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024, 2)
    raise AssertionError("no egress worker")


async def _echo(stream: trio.SocketStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def measure(folder: Path) -> dict[str, object]:
    """All figures."""
    first = hello(sni(b"evil.test")).hex()
    async with real_world(folder) as world:
        image = world.image(tables=PROCESS.replace('"probe.py"', f'"probe.py", "{first}"') + RULES + local_api())
        world.register(image)
        write_script(world, "probe.py", PROBE)
        listener = await listen(Tcp("127.0.0.1", 0))
        await world.nursery.start(partial(serve, listener, _echo, limit=100))
        parent = world.parent()

        async def dial(wanted: Connect) -> trio.SocketStream:
            return await world.dial() if wanted.host == SERVER_NAME else await connect(bound(listener))

        parent.dial = dial
        async with running_machine(world, image, parent=parent) as machine:
            memory = []
            for lines in (1, 2, 3):
                with trio.fail_after(300):  # looking at every report would take longer than what is measured
                    while len(machine.lines("app")) < lines:
                        await trio.sleep(0.5)
                memory.append(_memory())
            refused: dict[str, object] = json.loads(machine.lines("app")[0])
    return {"refused": refused, "memory_mib": dict(zip(("before", "after 1000", "after 11000"), memory, strict=True))}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        sys.stdout.write(json.dumps(trio.run(measure, Path(place)), indent=1) + "\n")
