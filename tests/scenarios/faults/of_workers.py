"""Faults of the workers and of the fork server: killed, stopped, ended by themselves, and not to be started."""

import ctypes
import os
import resource
import signal
import socket
from pathlib import Path

import trio

from tests.scenarios.clients import until
from tests.scenarios.faults.fault import APP, Act, Fault
from tests.scenarios.faults.of_the_machine import then
from tests.scenarios.faults.site import Site

INGRESS = """
[ingress]
mode = "tcp"
workers = 1
upstream = "tcp:127.0.0.1:1"
"""
FORK_SERVER, LOCAL_API, EGRESS, INGRESS_WORKER = 0, 1, 2, -1
"""Places among the fork server and the workers of an enclave that is ready, in the order in which they are started."""
_PIDFD_GETFD = 438  # on every processor


def killed(place: int) -> Act:
    """`kill -9` to the fork server or a worker, until there is another."""

    async def provoke(site: Site) -> None:
        victim = (await site.staffed())[place]
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in site.household.workers())
        await site.staffed()

    return then(provoke)


async def killed_again_and_again(site: Site) -> None:
    """Whatever is started in the place of an ingress worker."""
    known = set((await site.staffed())[:INGRESS_WORKER])
    while not site.shown("boot.failed"):
        for pid in set(site.household.workers()) - known:
            os.kill(pid, signal.SIGKILL)
        await trio.sleep(0.02)


async def stopped(site: Site) -> None:
    """A worker that gets no turn any more."""
    os.kill((await site.staffed())[INGRESS_WORKER], signal.SIGSTOP)
    await site.jump_until(lambda: site.shown("worker.ended"))


def left_by_the_first(place: int) -> Act:
    """The first process seems to hang up on it: who is there for nobody ends by itself."""

    async def provoke(site: Site) -> None:
        victim = (await site.staffed())[place]
        with _link_of(victim) as link:
            link.shutdown(socket.SHUT_RD)
        await until(lambda: victim not in site.household.workers())
        await site.staffed()

    return then(provoke)


async def hanging_fork_server(site: Site) -> None:
    """It is needed and does not answer."""
    staff = await site.staffed()
    os.kill(staff[FORK_SERVER], signal.SIGSTOP)
    os.kill(staff[LOCAL_API], signal.SIGKILL)
    await site.jump_until(lambda: site.shown("worker.ended", reason="api_worker_unstarted"))


async def no_descriptors(site: Site) -> None:
    """The first process may open nothing more, for as long as it takes it to see that."""
    victim = (await site.staffed())[FORK_SERVER]
    before = resource.prlimit(site.household.first, resource.RLIMIT_NOFILE)
    resource.prlimit(site.household.first, resource.RLIMIT_NOFILE, (0, before[1]))
    os.kill(victim, signal.SIGKILL)
    await site.seen("fork_server.ended", reason="fork_server_unstarted")
    resource.prlimit(site.household.first, resource.RLIMIT_NOFILE, before)
    await site.staffed()


def _link_of(pid: int) -> socket.socket:
    """This test's own descriptor of the first socket of a process, which is its link with the first process: pidfd_getfd(2)."""
    opened = sorted((int(path.name), str(path.readlink())) for path in Path(f"/proc/{pid}/fd").iterdir())
    number = next(number for number, target in opened if target.startswith("socket:"))
    handle = os.pidfd_open(pid)
    try:
        taken = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, handle, number, 0)
    finally:
        os.close(handle)
    assert taken >= 0, os.strerror(ctypes.get_errno())
    return socket.socket(fileno=taken)


async def stalled_egress(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    site.parent.egress_cable.is_stalled = True


async def kill_the_provisioning(site: Site) -> None:
    """While it waits for the parent."""
    await until(lambda: site.parent.egress_cable.carried != [])
    os.kill(site.household.workers()[-1], signal.SIGKILL)


async def renewing_soon(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    site.register(renew_after_seconds=3)


async def no_way_to_the_provisioner(site: Site) -> None:
    """From now on."""

    async def refuse() -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError

    await trio.lowlevel.checkpoint()
    site.parent.dial = refuse


async def kill_the_renewal(site: Site) -> None:
    """Whenever there is one, until it costs a renewal."""
    staff = set(await site.staffed())
    while not site.shown("renewal.failed"):
        for pid in set(site.household.workers()) - staff:
            os.kill(pid, signal.SIGKILL)
        await trio.sleep(0.01)


async def a_way_again(site: Site) -> None:
    """An hour may pass until the next attempt; not here."""
    done = [event for event in site.parent.console.recent if event["event"] == "renewal.done"]
    site.parent.dial = site.world.dial
    await site.jump_until(
        lambda: len([event for event in site.parent.console.recent if event["event"] == "renewal.done"]) > len(done)
    )


async def kill_the_first(site: Site) -> None:
    os.kill(site.household.first, signal.SIGKILL)


OF_WORKERS = (
    Fault(
        name="the worker that provisions is killed",
        reason="provision_worker_lost",
        prepare=stalled_egress,
        provoke=kill_the_provisioning,
    ),
    Fault(
        name="the worker of the local API is killed",
        event="worker.ended",
        reason="api_worker_killed",
        ends=None,
        provoke=killed(LOCAL_API),
    ),
    Fault(
        name="the worker of the egress is killed",
        event="worker.ended",
        reason="egress_worker_killed",
        ends=None,
        provoke=killed(EGRESS),
    ),
    Fault(
        name="a worker of the ingress is killed",
        event="worker.ended",
        reason="ingress_worker_killed",
        ends=None,
        tables=APP + INGRESS,
        provoke=killed(INGRESS_WORKER),
    ),
    Fault(
        name="a worker of the ingress is killed again and again",
        reason="ingress_worker_budget",
        tables=APP + INGRESS,
        provoke=then(killed_again_and_again),
    ),
    Fault(
        name="a worker of the ingress is stuck",
        event="worker.ended",
        reason="ingress_worker_stuck",
        ends=None,
        tables=APP + INGRESS,
        provoke=then(stopped),
    ),
    Fault(
        name="a worker of the ingress ends by itself",
        event="worker.ended",
        reason="ingress_worker_exited",
        ends=None,
        tables=APP + INGRESS,
        provoke=left_by_the_first(INGRESS_WORKER),
    ),
    Fault(
        name="no worker can be started",
        event="worker.ended",
        reason="api_worker_unstarted",
        ends=None,
        provoke=then(hanging_fork_server),
    ),
    Fault(
        name="the fork server is killed",
        event="fork_server.ended",
        reason="fork_server_killed",
        ends=None,
        provoke=killed(FORK_SERVER),
    ),
    Fault(
        name="the fork server ends by itself",
        event="fork_server.ended",
        reason="fork_server_exited",
        ends=None,
        provoke=left_by_the_first(FORK_SERVER),
    ),
    Fault(
        name="no fork server can be started",
        event="fork_server.ended",
        reason="fork_server_unstarted",
        ends=None,
        provoke=then(no_descriptors),
    ),
    Fault(
        name="what was released cannot be renewed",
        event="degraded",
        reason="provisioner_unreachable",
        kind="state",
        ends=None,
        provisioner="attempts = 1",
        prepare=renewing_soon,
        provoke=then(no_way_to_the_provisioner),
        mend=a_way_again,
    ),
    Fault(
        name="a renewal's worker is killed",
        event="degraded",
        reason="renew_worker_lost",
        kind="state",
        ends=None,
        prepare=renewing_soon,
        provoke=then(kill_the_renewal),
        mend=a_way_again,
    ),
    Fault(
        name="the first process is killed",
        event="enclave.disconnected",
        reason="closed",
        kind="parent",
        ends="killed",
        provoke=then(kill_the_first),
    ),
)
