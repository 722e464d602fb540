"""The fork server of the workers: `python -m runtime.enclave.worker CONTROL`, an inherited descriptor. Started by PID 1 alone.

It loads the code of every role once, holds no secret and reads nothing but PID 1's requests. Each worker is a fork of it, so it starts
in milliseconds and shares the loaded code's memory; the price is that workers share their address layout. A worker gives up root
before it reads the first byte of anybody but PID 1. It is forked twice, so that PID 1 is its parent and learns of its end.
"""

import encodings.idna  # noqa: F401 - every look-up of a name loads it: once here, instead of in each worker, whose user may not read it
import gc
import os
import resource
import socket
import sys

import trio

from runtime.enclave.config import load_enclave_config
from runtime.enclave.process.isolation import Isolation
from runtime.enclave.process.oom import WORKER, set_oom_score
from runtime.enclave.process.seccomp import worker_filter
from runtime.enclave.traffic.egress_kept import KeptListeners
from runtime.enclave.worker.api import serve_api
from runtime.enclave.worker.egress import serve_egress
from runtime.enclave.worker.first import First
from runtime.enclave.worker.ingress import serve_clients
from runtime.enclave.worker.provision import provision
from runtime.protocol.worker_link import Role

UIDS: dict[Role, int] = {"provision": 65500, "renew": 65500, "ingress": 65501, "api": 65502, "egress": 65503}
"""Of RUNTIME_UID_RANGE: one for each role, so that none can reach into another. The two that provision never run at once."""

DESCRIPTORS_MAX = 8
PID_SIZE = 4

_LIMITS = ((resource.RLIMIT_NOFILE, 65536), (resource.RLIMIT_NPROC, 256), (resource.RLIMIT_CORE, 0))


def main() -> int:
    """Forks a worker for every set of descriptors that comes, until the control socket is closed."""
    set_oom_score(WORKER)
    control = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # what is loaded stays shared: the collector would write into every object
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, DESCRIPTORS_MAX)
        if not message:
            return 0
        between = os.fork()
        if between == 0:
            worker = os.fork()
            if worker == 0:
                control.close()
                link, *listeners = descriptors
                trio.run(_run, link, listeners)
                return 0
            control.send(worker.to_bytes(PID_SIZE, "big"))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)


async def _run(link: int, listeners: list[int]) -> None:
    first = First(trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=link))))
    configure = await first.configure()
    config = load_enclave_config(configure.config, "enclave.toml", reads_roots=False)
    if os.geteuid() == 0:
        _give_up_root(configure.role)
    inherited = [socket.socket(fileno=number) for number in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_first_ends, first, nursery.cancel_scope)
        match configure.role:
            case "provision" | "renew":
                await provision(first, configure, config)
            case "ingress":
                await serve_clients(first, configure, config, _listener(inherited[0]))
            case "api":
                await serve_api(first, config, list(map(_listener, inherited)))
            case "egress":
                datagrams, streams, refusals, write, read, *proxy = inherited
                kept = KeptListeners(write, read)
                await serve_egress(first, configure, config, datagrams, _listener(streams), refusals, kept, *proxy)
        await first.flush()
        nursery.cancel_scope.cancel()


async def _until_first_ends(first: First, scope: trio.CancelScope) -> None:
    await first.run()
    scope.cancel()


def _listener(listening: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _give_up_root(role: Role) -> None:
    uid = UIDS[role]
    Isolation(
        uid=uid,
        gid=uid,
        root=None,
        directory="/",
        limits=_LIMITS,
        is_privileged=True,
        filter=worker_filter(os.uname().machine, may_reach_parent=role in ("provision", "renew", "egress")),
    ).give_up_privileges()


if __name__ == "__main__":
    sys.exit(main())
