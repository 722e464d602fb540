"""The egress worker's road beside nginx `stream` and socat: CPU for a gigabyte and for a short connection, in one run:

    python -m tests.egress.measure_relays

Ours is listener, road and record in one process; the parent behind it, which the others do not have, is a process of its own and not
counted. Prints one JSON object. Needs nginx with its stream module, and socat.
"""

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.processes import cpu_ns

GIGABYTES = 2
CONNECTIONS = 3000
CHUNK = 1 << 20

OURS = """
import sys, trio
from pathlib import Path
from runtime.enclave.init.network import keeping_sockets
from runtime.enclave.traffic.egress_kept import KeptListeners
from runtime.enclave.traffic.egress_listen import ListeningNames
from runtime.enclave.traffic.egress_log import EgressLog
from runtime.enclave.traffic.egress_road import Road, RoadLimits
from runtime.net.endpoint import Unix
from runtime.net.hub import Hub
from runtime.net.hub_relay import Means
from tests.egress.policies import policy


async def main():
    rules = policy('[egress]\\nallow = [{ name = "db.test", ports = [%s] }]' % sys.argv[1])
    log = EgressLog(lambda lines: None, lambda numbers: None)
    hub = Hub()
    with Means() as means:
        road = Road(rules, Unix(sys.argv[2]), means, record=log.flow, limits=RoadLimits())
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            ListeningNames(hub, rules, road, KeptListeners(*keeping_sockets()), note=print)
            await log.run()


trio.run(main)
"""

PARENT = """
import sys, trio
from runtime.net.endpoint import Tcp, Unix, listen
from runtime.net.hub import Hub
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means, relay
from runtime.net.hub_socket import connect, detached, receive_exactly
from runtime.protocol.egress_frames import PREFIX_SIZE, Connected, decode_connect, encode_answer, remaining_size


async def main():
    hub = Hub()
    with Means() as means:
        async def handle(work, enclave):
            size = remaining_size(await receive_exactly(work, enclave, PREFIX_SIZE))
            decode_connect(await receive_exactly(work, enclave, size))
            outside = await connect(work, Tcp("127.0.0.1", int(sys.argv[2])))
            await relay(work, outside, enclave, means, first=encode_answer(Connected()))

        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            Accepting(hub, detached(await listen(Unix(sys.argv[1]))), handle, limit=1000)
            await trio.sleep_forever()


trio.run(main)
"""

NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 1024; }}
stream {{
  log_format line '$time_iso8601 $bytes_sent $bytes_received $session_time';
  access_log {folder}/access.log line;
  server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{server}; }}
}}
"""


@contextmanager
def _started(command: list[str]) -> Iterator[int]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _serve(listening: socket.socket) -> None:
    """One byte asks for one, another for a gigabyte."""
    block = memoryview(bytes(CHUNK))

    def one(stream: socket.socket) -> None:
        with stream:
            if stream.recv(1) == b"g":
                for _ in range(1024 * GIGABYTES):
                    stream.sendall(block)
            else:
                stream.sendall(b"x")

    while True:
        try:
            stream, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(stream,), daemon=True).start()


def _until_up(at: tuple[str, int]) -> None:
    for _ in range(200):
        try:
            with socket.create_connection(at) as stream:
                stream.sendall(b"x")
                if stream.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"nothing at {at}")


def _measure(at: tuple[str, int], pid: int, *, has_children: bool) -> dict[str, float]:
    _until_up(at)
    spent = _cpu(pid, has_children)
    buffer = bytearray(CHUNK)
    with socket.create_connection(at) as stream:
        stream.sendall(b"g")
        while stream.recv_into(buffer):
            pass
    bulk = _cpu(pid, has_children) - spent
    spent = _cpu(pid, has_children)
    for _ in range(CONNECTIONS):
        with socket.create_connection(at) as stream:
            stream.sendall(b"x")
            while stream.recv(10):
                pass
    time.sleep(0.5)
    return {
        "cpu_ms_for_a_gigabyte": round(bulk / 1e6 / GIGABYTES),
        "cpu_us_for_a_connection": round((_cpu(pid, has_children) - spent) / 1e3 / CONNECTIONS),
    }


def _cpu(pid: int, has_children: bool) -> int:
    """Nanoseconds; of socat, which forks for each connection, those of its ended children too."""
    if not has_children:
        return cpu_ns((pid,))
    time.sleep(0.5)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * 10_000_000


def main() -> int:
    """Measures all three."""
    found = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        server = listening.getsockname()[1]
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=5412, server=server))
        stack.enter_context(_started([sys.executable, "-c", PARENT, str(folder / "parent.sock"), str(server)]))
        ours = [sys.executable, "-c", OURS, "5411", str(folder / "parent.sock")]
        socat = ["socat", "-b65536", "TCP-LISTEN:5413,bind=127.0.0.1,fork,reuseaddr,backlog=128", f"TCP:127.0.0.1:{server}"]
        for subject, at, command in (
            ("ours", ("127.64.0.1", 5411), ours),
            ("nginx", ("127.0.0.1", 5412), ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]),
            ("socat", ("127.0.0.1", 5413), socat),
        ):
            with _started(command) as pid:
                found[subject] = _measure(at, pid, has_children=subject == "socat")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
