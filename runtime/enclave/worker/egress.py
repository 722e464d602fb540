"""The role "egress": resolver, listeners, proxy and all connections that customer processes make to the outside. It holds no secret.

The sockets of the resolver and of the proxy come from PID 1, so that nobody else can take their place while a worker is started again.
What is open when it dies is lost; the addresses of names stay, and so does what listens there.
"""

import socket
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address

import trio

from runtime.enclave.config import EnclaveConfig
from runtime.enclave.refusals import RECORD
from runtime.enclave.traffic.egress_kept import KeptListeners
from runtime.enclave.traffic.egress_listen import ListeningNames
from runtime.enclave.traffic.egress_log import EgressLog
from runtime.enclave.traffic.egress_policy import EgressPolicy
from runtime.enclave.traffic.egress_proxy import EgressProxy
from runtime.enclave.traffic.egress_road import Road
from runtime.enclave.traffic.limits import road_limits
from runtime.enclave.traffic.resolver_serve import resolver, serve_datagrams, serve_stream
from runtime.enclave.worker.first import First
from runtime.net.endpoint import Endpoint
from runtime.net.hub import Hub
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means
from runtime.net.serve import serve
from runtime.protocol.worker_link import Configure, Counted, Finished, Requests, Started

PROXY_WAITING = 256
"""Connections to the proxy beyond those that are carried: they are told that there are too many."""
RESOLVER_CONNECTIONS = 256
"""Of questions over TCP, at once."""


async def serve_egress(
    first: First,
    configure: Configure,
    config: EnclaveConfig,
    datagrams: socket.socket,
    streams: trio.SocketListener,
    refusals: socket.socket,
    kept: KeptListeners,
    proxy: socket.socket | None = None,
) -> None:
    """Serves until told to drain."""
    policy = EgressPolicy(config.egress.allow)
    log = EgressLog(lambda lines: first.tell(Requests(lines)), lambda numbers: first.tell(Counted(numbers)))
    hub = Hub()
    with Means() as means:
        road = Road(policy, Endpoint.parse(configure.egress), means, record=log.flow, limits=road_limits(config.egress.limits))
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            names = ListeningNames(hub, policy, road, kept, note=lambda event, fields: first.note(event, fields, "warning"))
            answer = resolver(policy, names, is_link_up=lambda: first.is_link_up, record=log.lookup)
            await nursery.start(serve_datagrams, datagrams, answer)
            await nursery.start(partial(serve, streams, partial(serve_stream, answer=answer), limit=RESOLVER_CONNECTIONS))
            if proxy is not None:
                serve_proxy = EgressProxy(road.carry, record=log.flow).serve
                Accepting(hub, proxy, serve_proxy, limit=config.egress.limits.max_connections + PROXY_WAITING)
            nursery.start_soon(_record_refusals, refusals, names, log)
            nursery.start_soon(log.run)
            first.tell(Started())
            await first.drain_asked.wait()
            _take_refusals(refusals, names, log)
            names.close()
            nursery.cancel_scope.cancel()
    log.flush()
    first.tell(Finished())


async def _record_refusals(refusals: socket.socket, names: ListeningNames, log: EgressLog) -> None:
    """What the kernel has refused, as PID 1 sees it (runtime/enclave/refusals.py)."""
    while True:
        await trio.lowlevel.wait_readable(refusals)
        if _take_refusals(refusals, names, log):
            return


def _take_refusals(refusals: socket.socket, names: ListeningNames, log: EgressLog) -> bool:
    """Those that are there; whether no more will come, since none can be seen."""
    refusals.setblocking(False)
    with suppress(BlockingIOError):
        while record := refusals.recv(RECORD):
            flow = names.refused(IPv4Address(record[:4]), int.from_bytes(record[4:6], "big"), is_datagram=record[6] == 1)
            if flow is not None:
                log.flow(flow)
        return True
    return False
