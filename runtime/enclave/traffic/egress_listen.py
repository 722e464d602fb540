"""Listens for the names that may be connected to: on the allowed ports of the loopback address that stands for each, and nowhere else.

Runs in the egress worker. A connection to such an address and port *is* a connection to that name and port, whoever makes it. Names that
the rules spell out are listened for from the start; one below a suffix, when it is first asked for. What listens outlives the
worker (egress_kept.py).
"""

import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import chain

import trio

from runtime.enclave.traffic.egress_kept import KeptListeners
from runtime.enclave.traffic.egress_policy import EgressPolicy
from runtime.enclave.traffic.egress_road import Flow, Road
from runtime.enclave.traffic.event_limit import EventLimit
from runtime.enclave.traffic.resolver import LoopbackNames, Unlisted
from runtime.net.hub import Hub, Work
from runtime.net.hub_accept import Accepting, Handler
from runtime.net.hub_socket import Plain

LISTENERS_MAX = 16384
"""Sockets of all names together: each is a descriptor and some 3 KiB."""
FAILURE_KEPT = 1.0
"""Seconds in which a name that could not be listened for is not tried again: whoever asks for it decides how often."""
_BACKLOG = 1024
_WAITING_MAX = 1 << 20  # the road has the cap that counts, and tells who is over it

Note = Callable[[str, dict[str, object]], None]


class ListeningNames:
    """What the resolver asks for addresses: one that it gets is listened on. `note` is told, within limits, of a port that cannot be."""

    def __init__(
        self, hub: Hub, policy: EgressPolicy, road: Road, kept: KeptListeners, *, note: Note, most: int = LISTENERS_MAX
    ) -> None:
        self._hub = hub
        self._policy = policy
        self._road = road
        self._kept = kept
        self._note = EventLimit(note)
        self._left = most
        self._names = LoopbackNames(policy.exact_names())
        self._open: dict[str, list[tuple[socket.socket, Accepting]]] = {}
        self._failed: dict[str, float] = {}  # until when; no more than there are names
        self._before = kept.taken()
        for name in (*policy.exact_names(), *self._before.copy()):
            self.address(name)

    def address(self, name: str) -> IPv4Address | Unlisted:
        """The address of the normalised and allowed `name`, which is listened on; or why there is none."""
        address = self._names.address(name)
        if isinstance(address, IPv4Address) and name not in self._open:
            ports = self._policy.ports(name)
            if len(ports) > self._left:
                return "names_exhausted"
            if self._failed.get(name, 0.0) > trio.current_time():
                return "listen_failed"
            before = self._before.pop(name, {})
            opened: list[socket.socket] = []
            for port in ports:
                try:
                    listening = before.get((address, port)) or _listen(str(address), port)
                except OSError as error:
                    self._note("egress.listen_failed", port=port, errno=errno.errorcode.get(error.errno or 0, ""))
                    self._failed[name] = trio.current_time() + FAILURE_KEPT
                    for each in (*opened, *before.values()):
                        each.close()
                    return "listen_failed"
                opened.append(listening)
            new = [each for each in opened if each not in before.values()]
            if new and not self._kept.keep(name, new):
                for each in opened:
                    each.close()
                return "names_exhausted"
            self._failed.pop(name, None)
            self._open[name] = [
                (listening, Accepting(self._hub, listening, self._carry(name, port), limit=_WAITING_MAX))
                for listening, port in zip(opened, ports, strict=True)
            ]
            self._left -= len(ports)
        return address

    def refused(self, address: IPv4Address, port: int, *, is_datagram: bool) -> Flow | None:
        """What the kernel has refused because nobody listens there; None for the reset of a connection that was taken here."""
        name = self._names.name(address)
        if name is None:
            return Flow(way="direct", host=str(address), port=port, rule=None, reason="address_without_name")
        if is_datagram:
            return Flow(way="direct", host=name, port=port, rule=None, reason="not_tcp")
        decision = self._policy.decide_name(name, port)
        if decision.allowed:
            return None
        return Flow(way="direct", host=name, port=port, rule=decision.rule, reason=decision.reason)

    def close(self) -> None:
        """Listens no more, nor does what is kept; what is carried goes on."""
        for listening, accepting in chain.from_iterable(self._open.values()):
            listening.shutdown(socket.SHUT_RDWR)
            accepting.close()
        self._open.clear()

    def _carry(self, name: str, port: int) -> Handler:
        async def handle(work: Work, plain: Plain) -> None:
            await self._road.carry(work, plain, name, port)

        return handle


def _listen(address: str, port: int) -> socket.socket:
    """Raises OSError: EADDRINUSE where a process listens on that port of all addresses."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart, connections of before are in TIME_WAIT
        listening.bind((address, port))
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
