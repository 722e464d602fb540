"""An ingress worker that is killed costs its own connections, no others, and no client that comes afterwards."""

import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtime.enclave.process.workers import Worker
from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp, bound, connect, listen
from runtime.net.serve import CONNECTION_ERRORS, serve
from runtime.net.tls import TlsStream, client_context
from runtime.protocol.worker_link import Configure, WorkerIdentity
from tests.enclave.test_config import PROVISIONER
from tests.enclave.traffic.harness import GET, HOST, App, Peer, proxy_header
from tests.enclave.worker.bench import bench
from tests.support.certificates import make_ca

SECONDS = 60
CLIENTS = 12
ENDED: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, AssertionError)  # the latter: within an answer


def identity() -> WorkerIdentity:
    made = make_ca("killed workers", utc_now()).issue((HOST,))
    key = made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return WorkerIdentity((HOST,), tuple(each.public_bytes(Encoding.DER) for each in made.chain), key)


@asynccontextmanager
async def two_workers(served: Sequence[WorkerIdentity] = ()) -> AsyncGenerator[tuple[Tcp, list[Worker]]]:
    """Both serve `served`, as it is when they are started."""
    async with bench() as on, trio.open_nursery() as nursery:
        app, public = await listen(Tcp("127.0.0.1", 0)), await listen(Tcp("127.0.0.1", 0))

        async def handle(stream: trio.SocketStream) -> None:
            await App()(Peer(stream))

        await nursery.start(partial(serve, app, handle, limit=1000))
        config = f"""
version = 1
[enclave]
id = "bench"
[[process]]
name = "app"
command = ["true"]
[ingress]
mode = "http"
upstream = "{bound(app)}"
[tls]
names = ["{HOST}"]
{PROVISIONER}
""".encode()
        served = served or (identity(),)

        def configure() -> Configure:
            return Configure("ingress", config, bytes(16), "unix:/x", tuple(served), True, 2)

        workers = [Worker("ingress", on.services, configure, [public]) for _ in range(2)]
        async with public:
            for worker in workers:
                await nursery.start(worker.run)
            at = bound(public)
            assert isinstance(at, Tcp)
            yield at, workers
            nursery.cancel_scope.cancel()


async def client(stack: AsyncExitStack, at: Tcp, name: str = HOST) -> Peer:
    stream = await stack.enter_async_context(await connect(at))
    await stream.send_all(proxy_header())
    tls = await TlsStream.connect(stream, client_context(None, now=utc_now()), server_name=name, check_name=False)
    stack.push_async_callback(trio.aclose_forcefully, tls)
    return Peer(tls)


def leaf_of(peer: Peer) -> x509.Certificate:
    assert isinstance(peer.stream, TlsStream)
    assert peer.stream.peer_certificate is not None
    return peer.stream.peer_certificate


async def is_served(peer: Peer) -> bool:
    """Whether its connection still is; it asks for the name that its certificate has."""
    (name,) = leaf_of(peer).extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    try:
        await peer.send(GET.replace(HOST.encode(), name.encode()))
        status, _, body = await peer.answer()
    except ENDED:
        return False
    assert (status, body) == (200, b"ok")
    return True


def pid_of(worker: Worker) -> int:
    assert worker._process is not None
    return worker._process.pid


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_a_killed_worker_costs_its_own_connections_only() -> None:
    with trio.fail_after(SECONDS):
        async with two_workers() as (at, workers), AsyncExitStack() as stack:
            pids = [pid_of(worker) for worker in workers]
            before = [descriptors(pid) for pid in pids]
            clients = [await client(stack, at) for _ in range(CLIENTS)]
            held = [descriptors(pid) - count for pid, count in zip(pids, before, strict=True)]
            assert sum(held) == CLIENTS
            victim = held.index(max(held))
            os.kill(pids[victim], signal.SIGKILL)
            served = [await is_served(each) for each in clients]
            assert served.count(False) == held[victim]
            for _ in range(CLIENTS):  # also while the next worker has not started yet
                assert await is_served(await client(stack, at))
            while (process := workers[victim]._process) is None or process.pid == pids[victim]:
                await trio.sleep(0.01)
            assert pid_of(workers[1 - victim]) == pids[1 - victim]
