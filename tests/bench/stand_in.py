"""Stands in for PID 1 around one real ingress worker: `python -m tests.bench.stand_in FOLDER UPSTREAM_PORT`.

The worker is what an enclave runs: forked by the real fork server, under its own uid where this is root, with the real TLS context and
the real link to here, where its log records are counted and dropped. It says one line of JSON when it serves, and ends with its input.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from runtime.enclave.config import load_enclave_config
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.link import TicketUnavailable
from runtime.enclave.process.fork_server import ForkServer
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.subreaper import become_subreaper
from runtime.enclave.process.workers import Services, Worker
from runtime.net.endpoint import Tcp, bound, listen
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.worker_link import Configure, WorkerIdentity
from tests.bench.processes import read_line, started
from tests.bench.site import NAME, Site
from tests.bench.subjects import Running, Subject
from tests.enclave.test_config import PROVISIONER
from tests.enclave.worker.bench import InMemoryDevice

_DRAIN_SECONDS = 2.0
_CONFIG = """
version = 1
[enclave]
id = "bench"
[[process]]
name = "app"
command = ["true"]
[ingress]
mode = "http"
upstream = "tcp:127.0.0.1:{port}"
workers = 1
[ingress.limits]
max_connections = 40000
max_connections_per_address = 40000
idle_timeout = "10m"
[tls]
names = ["{name}"]
{provisioner}
"""


@contextmanager
def _ours(site: Site) -> Iterator[Running]:
    log = site.folder / "ours.log"
    command = [sys.executable, "-m", "tests.bench.stand_in", str(site.folder), str(site.upstream_port)]
    with started(command, log=log, speaks=True) as process:
        told = json.loads(read_line(process, "the ingress worker", log))
        yield Running(name="ours", port=told["port"], pids=(told["pid"],), beside=(process.pid,))


OURS = Subject(name="ours", start=_ours)


def main(folder: str, upstream_port: str) -> None:
    """See the module."""
    trio.run(_main, Site(folder=Path(folder), upstream_port=int(upstream_port), descriptors=0))


async def _main(site: Site) -> None:
    raw = _CONFIG.format(port=site.upstream_port, name=NAME, provisioner=PROVISIONER).encode()
    identity = _identity(site)
    notes: Counter[str] = Counter()
    reaper = Reaper()
    become_subreaper()  # so that the worker, which is forked twice, becomes a child of this process

    def note(event: str, fields: JournalFields, level: Level) -> None:
        notes[event] += 1
        if level == "error":
            sys.stderr.write(f"{event} {fields}\n")

    def on_requests(lines: bytes) -> None:
        notes["requests"] += lines.count(b"\n")

    async with trio.open_nursery() as nursery:
        fork_server = ForkServer(reaper)
        nursery.start_soon(reaper.run)
        nursery.start_soon(partial(fork_server.run, note))
        services = Services(
            nsm=Nsm(InMemoryDevice()),
            config_digest=load_enclave_config(raw, "enclave.toml").digest,
            ticket=_no_ticket,
            note=note,
            reaper=reaper,
            fork_server=fork_server,
        )
        listener = await listen(Tcp("127.0.0.1", 0), backlog=4096)
        worker = Worker(
            "ingress", services, lambda: Configure("ingress", raw, bytes(16), "unix:/", (identity,), True, 1), [listener]
        )
        worker.on_requests = on_requests
        async with listener:
            await nursery.start(worker.run)
            at = bound(listener)
            assert isinstance(at, Tcp)
            assert worker._process is not None
            sys.stdout.write(json.dumps({"port": at.port, "pid": worker._process.pid}) + "\n")
            sys.stdout.flush()
            await trio.lowlevel.wait_readable(sys.stdin.fileno())
            worker.drain(_DRAIN_SECONDS)  # so that its last log records come
            with trio.move_on_after(2 * _DRAIN_SECONDS):
                await worker.finished.wait()
        nursery.cancel_scope.cancel()
    sys.stderr.write(f"the worker told of {dict(notes)}\n")


async def _no_ticket() -> bytes:
    await trio.lowlevel.checkpoint()
    raise TicketUnavailable("there is no parent")


def _identity(site: Site) -> WorkerIdentity:
    chain = x509.load_pem_x509_certificates(site.chain.read_bytes())
    key = load_pem_private_key(site.key.read_bytes(), None)
    return WorkerIdentity(
        (NAME,),
        tuple(each.public_bytes(Encoding.DER) for each in chain),
        key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
