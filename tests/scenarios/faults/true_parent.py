"""A true parent's control server, tickets and egress, on cables that a test may cut: for faults that must be seen where an operator looks.

Unlike the hostile parent of the simulator it is the code that operators run. What it has recorded is its standard error, its file of
events, and every byte on the cables.
"""

import io
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, TextIO

import trio

from runtime.net.hub import Work
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain
from runtime.net.serve import CONNECTION_ERRORS
from runtime.parent.config import Egress, Limits
from runtime.parent.console import Console
from runtime.parent.control import Control
from runtime.parent.egress import EgressRelay
from runtime.parent.tickets import NoTicket, ProvisionerTickets
from runtime.protocol.address_kind import Address
from runtime.protocol.messages import TicketReply
from runtime.simulator.hostile_parent import Handler, join
from tests.support.hubs import dialled, on_hub

_CHUNK = 64 * 1024
_SOMEWHERE = ip_address("192.0.2.1")
"""What every name resolves to. It is for documentation (RFC 5737): nobody is there, and it is not what is connected to."""


class Cable:
    """Carries connections of the enclave to a handler of the parent, and keeps what it carries.

    While it is down, whoever comes is hung up on. While it is stalled, nothing comes out of it for the enclave.
    """

    def __init__(self, nursery: trio.Nursery, handler: Handler) -> None:
        self.handler = handler
        self.carried: list[bytearray] = []
        self.is_down = False
        self.is_stalled = False
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._near: trio.SocketStream | None = None
        self._turn = trio.Lock()

    async def handle(self, near: trio.SocketStream) -> None:
        """Serves one connection to its end."""
        if self.is_down:
            return
        self._near = near
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with await join(self._nursery, self.handler) as far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far)
                    nursery.start_soon(self._pump, far, near)
            finally:
                self._scopes.discard(scope)

    def hang_up(self) -> None:
        """Ends every connection."""
        for scope in self._scopes:
            scope.cancel()

    def cut(self) -> None:
        """Ends every connection, and lets no other come until `is_down` is reset."""
        self.is_down = True
        self.hang_up()

    async def say(self, data: bytes) -> None:
        """Puts bytes of its own on the enclave's last connection."""
        assert self._near is not None
        async with self._turn:
            await self._near.send_all(data)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        carried = bytearray()
        self.carried.append(carried)
        turn = self._turn if sink is self._near else trio.Lock()
        while data := await source.receive_some(_CHUNK):
            carried += data
            if self.is_stalled and sink is self._near:
                await trio.sleep_forever()
            async with turn:
                await sink.send_all(data)
        with suppress(trio.BrokenResourceError):
            await sink.send_eof()


class TrueParent:
    """The parent of one enclave. `dial` reaches the provisioner, whatever name the enclave asks for; both may be changed at any time.

    `before_ticket` is called before each ticket is bought; without `tickets` there are none.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        events: TextIO,
        *,
        instance_id: str,
        tickets: ProvisionerTickets | None,
        dial: Callable[[], Awaitable[trio.SocketStream]],
    ) -> None:
        self.stderr = io.StringIO()
        self.console = Console(self.stderr, as_json=True, events=events)
        self.tickets = tickets
        self.dial = dial
        self.after_ticket: Callable[[], None] = lambda: None
        self.heartbeats = 0
        self._control = Control(console=self.console, tickets=self, instance_id=instance_id, host_parameters={})
        egress = EgressRelay(
            Egress(allow=(ip_network("192.0.2.0/24"),)),
            Limits(),
            Means(),
            refused=lambda request, reason: self.console.warn("egress.refused", host=request.host, reason=reason),
            resolve=_resolve,
            dial=self._dial,
        )
        self.control_cable = Cable(nursery, self._handle_control)
        self.egress_cable = Cable(nursery, on_hub(egress.serve))

    @property
    def control(self) -> Control:
        """What `enclave status` asks."""
        return self._control

    async def fetch(self) -> TicketReply:
        """As `TicketSource`."""
        if self.tickets is None:
            await trio.lowlevel.checkpoint()
            raise NoTicket("unreachable", "told to")
        reply = await self.tickets.fetch()
        self.after_ticket()
        return reply

    async def until_shown(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event on the console that is wanted, now or to come; the deadline is the caller's."""
        number = 0
        while True:
            for record in self.console.recent:
                if wanted(record):
                    return record
            number = self.console.count
            await self.console.until_after(number)

    def recorded(self) -> list[bytes]:
        """All that it has recorded of the enclave, but its files."""
        cables = [*self.control_cable.carried, *self.egress_cable.carried]
        return [self.stderr.getvalue().encode(), *map(bytes, cables)]

    async def _handle_control(self, stream: trio.SocketStream) -> None:
        with suppress(*CONNECTION_ERRORS):
            await self._control.handle(stream)

    async def _dial(self, work: Work, _addresses: Sequence[Address], _port: int) -> Plain:
        return await dialled(work, self.dial)


async def _resolve(_name: str) -> Sequence[Address]:
    await trio.lowlevel.checkpoint()
    return [_SOMEWHERE]
