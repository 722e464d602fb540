"""One outbound connection of a customer process, from the question whether it may be to its last byte. The one way out there is.

Runs in the egress worker, on its hub, for whatever takes connections there: the listeners of names (egress_listen.py) and the explicit
proxy. Trusts the measured rules. The process is a stranger, and so is the parent, who may only deny: it learns host and port of
what is allowed, and gets bytes of TLS where a rule asks for TLS.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from runtime.enclave.traffic.egress import EgressRefused, open_on_hub
from runtime.enclave.traffic.egress_connect import ConnectFault
from runtime.enclave.traffic.egress_policy import Decision, DecisionReason, EgressPolicy, TlsDemand
from runtime.enclave.traffic.sni_gate import GateReason, judge_hello
from runtime.net.endpoint import Endpoint
from runtime.net.hub import IN, Expired, Work
from runtime.net.hub_relay import Ending, Means, relay
from runtime.net.hub_socket import Plain, send_all
from runtime.protocol.client_hello import HELLO_FAULTS, ClientHelloReader, HelloFault
from runtime.protocol.egress_frames import RefusalReason
from runtime.protocol.errors import Malformed
from runtime.protocol.socks import SocksFault

Way: TypeAlias = Literal["direct", "connect", "socks"]
"""How a process came here: by the address of a name, by HTTP CONNECT, by SOCKS5."""

ProxyFault: TypeAlias = ConnectFault | SocksFault | Literal["proxy_timeout", "client_gone"]
"""Why a request to the explicit proxy asked for nothing."""

FlowReason: TypeAlias = (
    DecisionReason
    | ProxyFault
    | GateReason
    | HelloFault
    | RefusalReason
    | Literal["too_many_connections", "hello_timeout", "client_gone", "parent_unreachable", "parent_answer"]
    | Literal["address_without_name", "not_tcp"]
)
"""`allowed`: bytes were carried. The parent's own reasons are its word, which may be a lie."""

_CHUNK = 16 * 1024
_TELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoadLimits:
    """Connections at once. Seconds: for the connection outside, for a whole ClientHello, for one direction after the other ended,
    without a byte either way, and altogether."""

    connections: int = 4096
    connect: float = 15.0
    hello: float = 10.0
    linger: float = 60.0
    idle: float | None = 3600.0
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What became of one connection. `host` is the normalised one, or, where the text is neither name nor address, that text.

    `sent` and `received` are bytes from and to the process, `ending` how a connection that was carried ended."""

    way: Way
    host: str
    port: int
    rule: int | None
    reason: FlowReason
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    ending: Ending | None = None


class _Refused(Exception):
    """The connection is not carried. `is_told`: the client was told that it stands."""

    def __init__(self, reason: FlowReason, *, is_told: bool = False) -> None:
        super().__init__(reason)
        self.reason: FlowReason = reason
        self.is_told = is_told


class Road:
    """Carries connections; `record` gets one `Flow` for each, when it has ended. `parent` is the parent's egress port."""

    def __init__(
        self, policy: EgressPolicy, parent: Endpoint, means: Means, *, record: Callable[[Flow], None], limits: RoadLimits
    ) -> None:
        self._policy = policy
        self._parent = parent
        self._means = means
        self._record = record
        self._limits = limits
        self._open = 0

    async def carry(
        self,
        work: Work,
        client: Plain,
        host_untrusted: str,
        port: int,
        *,
        way: Way = "direct",
        tell: Callable[[FlowReason], bytes] | None = None,
    ) -> None:
        """Decides, connects, relays and records one connection, and closes it. Never raises for what a socket does.

        `client` is where the process is: nothing that it sends was read, but for a proxy's own request. `host_untrusted` is the name
        or, for a proxy, name or address that it asked for, in any spelling; only a name will do for way "direct". A proxy gives `tell`:
        the bytes that say to its client what came of it, `allowed` being that the connection stands. Without it a refusal is a reset.
        With it the connection outside is made first, so that its failure can be told, and the ClientHello is judged behind the
        answer; without it no one outside hears of the connection before its ClientHello was judged.
        """
        begun = work.hub.now
        ask = self._policy.decide_name if way == "direct" else self._policy.decide
        decision = ask(host_untrusted, port)
        reason: FlowReason = "allowed"
        sent, received, ending = 0, 0, None
        self._open += 1
        try:
            server, first = await self._admit(work, client, decision, tell)
            relayed = await relay(
                work,
                client,
                server,
                self._means,
                first=first,
                linger=self._limits.linger,
                idle=self._limits.idle,
                total=self._limits.total,
            )
            sent, received, ending = relayed.left_to_right + len(first), relayed.right_to_left, relayed.ending
        except _Refused as refused:
            reason = refused.reason
            await _refuse(work, client, refused, tell)
        finally:
            self._open -= 1
            client.close()
        flow = Flow(
            way=way,
            host=decision.host or host_untrusted,
            port=port,
            rule=decision.rule,
            reason=reason,
            sent=sent,
            received=received,
            seconds=work.hub.now - begun,
            ending=ending,
        )
        self._record(flow)

    async def _admit(
        self, work: Work, client: Plain, decision: Decision, tell: Callable[[FlowReason], bytes] | None
    ) -> tuple[Plain, bytes]:
        """The connection outside, and what the client has sent that was read. Raises `_Refused`."""
        if not decision.allowed:
            raise _Refused(decision.reason)
        if self._open > self._limits.connections:
            raise _Refused("too_many_connections")
        if tell is None:
            first = await self._first_bytes(work, client, decision.tls)
            return await self._connect(work, decision), first
        server = await self._connect(work, decision)
        try:
            try:
                await send_all(work, client, tell("allowed"))
            except (OSError, Expired):
                raise _Refused("client_gone") from None
            return server, await self._first_bytes(work, client, decision.tls, is_told=True)
        except BaseException:
            server.abort()
            raise

    async def _connect(self, work: Work, decision: Decision) -> Plain:
        work.within(self._limits.connect)
        try:
            return await open_on_hub(work, self._parent, decision.host, decision.port)
        except EgressRefused as refused:
            raise _Refused(refused.reason) from None
        except Expired:
            raise _Refused("timeout") from None
        except Malformed:
            raise _Refused("parent_answer") from None
        except OSError:
            raise _Refused("parent_unreachable") from None

    async def _first_bytes(self, work: Work, client: Plain, demand: TlsDemand | None, *, is_told: bool = False) -> bytes:
        """What was read to judge the ClientHello; nothing where any protocol may be spoken. Raises `_Refused`."""
        if demand is None:
            return b""
        work.within(self._limits.hello)
        reader = ClientHelloReader()
        try:
            while True:
                try:
                    data = client.socket.recv(_CHUNK)
                except BlockingIOError:
                    await work.wait(client.source, IN)
                    continue
                if not data:
                    reader.finish()
                if (hello := reader.receive_data(data)) is not None:
                    break
        except Malformed as fault:
            raise _Refused(_hello_fault(fault.reason), is_told=is_told) from None
        except Expired:
            raise _Refused("hello_timeout", is_told=is_told) from None
        except OSError:
            raise _Refused("client_gone", is_told=is_told) from None
        if (reason := judge_hello(hello, demand)) != "allowed":
            raise _Refused(reason, is_told=is_told)
        return reader.received


async def _refuse(work: Work, client: Plain, refused: _Refused, tell: Callable[[FlowReason], bytes] | None) -> None:
    """Ends the client's connection: by a reset, so that it takes nothing for an answer, unless it can be told."""
    if tell is not None and not refused.is_told and await tell_last(work, client, tell(refused.reason)):
        return
    client.abort()


async def tell_last(work: Work, client: Plain, answer: bytes) -> bool:
    """Sends a client the last that it gets, and ends its direction: whether it took that. The socket stays the caller's."""
    work.within(_TELL_SECONDS)
    try:
        await send_all(work, client, answer)
        client.end()
        with suppress(BlockingIOError):
            while client.socket.recv(_CHUNK):  # what is unread at the close makes a reset of it, which takes the answer away
                pass
    except (OSError, Expired):
        return False
    return True


def _hello_fault(reason: str) -> HelloFault:
    for known in HELLO_FAULTS:
        if reason == known:
            return known
    raise AssertionError(reason)
