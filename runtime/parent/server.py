"""The parent as a whole: its nursery tree, from listening to the end of the last relay."""

import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TextIO

import trio

from runtime.net.buckets import TokenBuckets
from runtime.net.endpoint import Endpoint, Vsock, bound, listen
from runtime.net.hub import Hub, Work
from runtime.net.hub_accept import Accepting
from runtime.net.hub_accept import Handler as HubHandler
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain, connect, detached
from runtime.net.serve import serve
from runtime.parent.config import ParentConfig
from runtime.parent.console import Console, Detail
from runtime.parent.control import Control, NotConnected
from runtime.parent.egress import REFUSING_MAX, EgressRelay, Reason
from runtime.parent.egress_names import by_resolvers, by_system
from runtime.parent.health import HealthServer
from runtime.parent.ingress import IngressRelay
from runtime.parent.status import StatusServer
from runtime.parent.tickets import ProvisionerTickets
from runtime.protocol.egress_frames import Connect
from runtime.protocol.errors import ProtocolError
from runtime.protocol.messages import TicketRequest

CONTROL_CONNECTIONS = 8
STATUS_CONNECTIONS = 16
HEALTH_CONNECTIONS = 64
LAST_WORDS = 1.0
"""Seconds beyond a drain's deadline for the enclave to say that it has stopped."""
LAST_BYTES = 2.0
"""Seconds for clients to take what the enclave had sent them before it stopped."""
SHOWN_PER_SECOND = 5.0
"""Lines that each kind of refusal or error may put on the console in the long run; the enclave could cause any number."""

_Handler = Callable[[trio.SocketStream], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the parent listens, with the ports that the kernel chose."""

    public: Endpoint
    control: Endpoint
    egress: Endpoint
    status: Endpoint | None
    health: Endpoint | None

    def shown(self) -> dict[str, str]:
        """Each endpoint in its notation, by name."""
        endpoints = {
            "public": self.public,
            "control": self.control,
            "egress": self.egress,
            "status": self.status,
            "health": self.health,
        }
        return {name: str(endpoint) for name, endpoint in endpoints.items() if endpoint is not None}


async def run_parent(
    config: ParentConfig, *, stderr: TextIO | None = None, task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED
) -> None:
    """Runs until SIGTERM or SIGINT: the enclave then has `limits.stop_grace` to drain, a second signal ends all at once.

    Ready is told by `task_status` and by the console's event "ready". Raises OSError for what cannot be listened on or read,
    ValueError for a certificate or key that is none.
    """
    with ExitStack() as files:
        events = files.enter_context(config.output.events.open("a", encoding="utf-8")) if config.output.events else None
        console = Console(stderr or sys.stderr, as_json=config.output.format == "json", events=events)
        await _Parent(config, console).run(task_status)


class _Parent:
    def __init__(self, config: ParentConfig, console: Console) -> None:
        self._config = config
        self._console = console
        self._shown = TokenBuckets(rate=SHOWN_PER_SECOND, burst=20, most_keys=64)
        request = TicketRequest(enclave_id=config.enclave.id, instance_id=config.instance_id)
        self._control = Control(
            console=console,
            tickets=ProvisionerTickets(config.provisioner, request) if config.provisioner else None,
            instance_id=config.instance_id,
            host_parameters=config.host_parameters,
        )
        self._means = Means()
        self._ingress = IngressRelay(
            lambda work: connect(work, config.enclave.ingress),
            config.limits,
            self._means,
            reachable=self._ingress_reachable,
            is_closing=lambda: self._control.is_closing,
        )
        self._egress = EgressRelay(
            config.egress,
            config.limits,
            self._means,
            refused=self._egress_refused,
            resolve=by_resolvers(config.egress.resolvers) if config.egress.resolvers else by_system,
        )
        self._health = HealthServer(self._control, is_stopping=lambda: self._is_stopping)
        self._is_stopping = False

    async def run(self, task_status: trio.TaskStatus[Listening]) -> None:
        at = self._config.listen
        async with AsyncExitStack() as stack:
            public, control, egress = [
                await stack.enter_async_context(await _listen(endpoint)) for endpoint in (at.public, at.control, at.egress)
            ]
            status = await stack.enter_async_context(await _listen(at.status)) if at.status else None
            health = await stack.enter_async_context(await _listen(at.health)) if at.health else None
            listening = Listening(
                public=bound(public),
                control=bound(control),
                egress=bound(egress),
                status=bound(status) if status else None,
                health=bound(health) if health else None,
            )
            signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT))
            stack.enter_context(self._means)
            hub = Hub()
            nursery = await stack.enter_async_context(trio.open_nursery())
            await nursery.start(hub.run)
            await nursery.start(self._serve, "control", control, self._from_enclave(self._control.handle), CONTROL_CONNECTIONS)
            limits = self._config.limits
            most = limits.egress_connections + REFUSING_MAX
            carried = self._accept(hub, "egress", egress, self._from_enclave_on_hub(self._egress.serve), most)
            stack.callback(carried.close)
            if status:
                server = StatusServer(
                    self._control,
                    self._console,
                    enclave_id=self._config.enclave.id,
                    listening=listening.shown(),
                    egress=self._egress.numbers.shown,
                )
                await nursery.start(self._serve, "status", status, server.handle, STATUS_CONNECTIONS)
            if health:
                await nursery.start(self._serve, "health", health, self._health.handle, HEALTH_CONNECTIONS)
            clients = self._accept(hub, "ingress", public, self._ingress.serve, limits.ingress_connections)
            stack.callback(clients.close)
            self._console.parent("ready", **listening.shown())
            task_status.started(listening)
            self._console.parent("stopping", signal=await anext(signals))
            self._is_stopping = True
            clients.close()
            async with trio.open_nursery() as stopping:
                stopping.start_soon(_cancel_after, partial(self._finish, clients.wait_ended), stopping.cancel_scope)
                stopping.start_soon(_cancel_after, signals.__anext__, stopping.cancel_scope)
            nursery.cancel_scope.cancel()
        self._console.parent("stopped")

    async def _finish(self, clients_ended: Callable[[], Awaitable[None]]) -> None:
        """Lets the enclave drain, and clients take their last bytes; without an enclave there are only clients to wait for."""
        grace = self._config.limits.stop_grace
        boot = self._control.boot
        try:
            self._control.drain(int(grace * 1000))
        except NotConnected:
            with trio.move_on_after(LAST_BYTES if boot is not None and boot.is_over else grace):
                await clients_ended()
            return
        self._console.parent("drain.asked", deadline_ms=int(grace * 1000))
        with trio.move_on_after(grace + LAST_WORDS) as patience:
            await self._control.until_over()
        if patience.cancelled_caught:
            self._console.warn("drain.overdue", deadline_ms=int(grace * 1000))
            return
        with trio.move_on_after(LAST_BYTES):
            await clients_ended()

    def _accept(self, hub: Hub, name: str, listener: trio.SocketListener, handler: HubHandler, limit: int) -> Accepting:
        return Accepting(hub, detached(listener), handler, limit=limit, on_error=partial(self._report, name))

    async def _serve(
        self,
        name: str,
        listener: trio.SocketListener,
        handler: _Handler,
        limit: int,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await serve(listener, handler, limit=limit, on_error=partial(self._report, name), task_status=task_status)

    def _report(self, name: str, error: BaseException) -> None:
        reason = error.reason if isinstance(error, ProtocolError) else type(error).__name__
        self._show_some(f"{name}.error", reason=reason, detail=str(error)[:200])

    def _from_enclave(self, handler: _Handler) -> _Handler:
        return only_from(self._config.enclave.ingress, handler, foreign=self._foreign)

    def _from_enclave_on_hub(self, handler: HubHandler) -> HubHandler:
        async def serve(work: Work, plain: Plain) -> None:
            if (cid := foreign_cid(self._config.enclave.ingress, plain.socket)) is None:
                await handler(work, plain)
            else:
                self._foreign(cid)

        return serve

    def _foreign(self, cid: int) -> None:
        self._show_some("foreign_cid", cid=cid)

    def _ingress_reachable(self, is_reachable: bool) -> None:
        self._show_some("ingress.reachable" if is_reachable else "ingress.unreachable")

    def _egress_refused(self, request: Connect, reason: Reason) -> None:
        self._show_some("egress.refused", host=request.host, port=request.port, reason=reason)

    def _show_some(self, event: str, **details: Detail) -> None:
        """A warning that others can provoke: shown at a bounded rate."""
        if not self._shown.take(event, now=trio.current_time()):
            self._console.warn(event, **details)


def only_from(enclave: Endpoint, handler: _Handler, *, foreign: Callable[[int], None]) -> _Handler:
    """`handler` for the CID of `enclave` only: every other enclave of this instance reaches the same vsock ports."""

    async def handle(stream: trio.SocketStream) -> None:
        if (cid := foreign_cid(enclave, stream.socket)) is None:
            await handler(stream)
        else:
            foreign(cid)

    return handle


def foreign_cid(enclave: Endpoint, accepted: socket.socket | trio.socket.SocketType) -> int | None:
    """The CID of whoever connected over vsock and is not `enclave`."""
    if not isinstance(enclave, Vsock) or accepted.family != socket.AF_VSOCK:
        return None
    cid: int = accepted.getpeername()[0]
    return None if cid == enclave.cid else cid


async def _listen(endpoint: Endpoint) -> trio.SocketListener:
    try:
        return await listen(endpoint)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(endpoint)) from None


async def _cancel_after(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
