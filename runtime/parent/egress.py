"""Egress at the parent: one connection of the enclave for each connection to the network (protocol/README.md section 2).

What may be reached is the enclave's measured policy, decided inside; here only the parent's own network is protected (addresses.py).
A name is resolved once (egress_names.py) and the checked addresses themselves are connected to (egress_dial.py), so no second answer
of a resolver counts.
"""

import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal, TypeAlias

from runtime.net.hub import Expired, Work
from runtime.net.hub_relay import Means, relay
from runtime.net.hub_socket import Plain, receive_exactly, send_all
from runtime.parent.addresses import is_permitted
from runtime.parent.config import Egress, Limits
from runtime.parent.egress_dial import dial
from runtime.parent.egress_names import Resolve, by_system
from runtime.protocol.address_kind import Address
from runtime.protocol.egress_frames import (
    PREFIX_SIZE,
    Connect,
    Connected,
    RefusalReason,
    Refused,
    decode_connect,
    encode_answer,
    remaining_size,
)

CONNECT_FRAME_DEADLINE = 10.0
ATTEMPTS_MAX = 6
"""Addresses of one name that are tried, within one deadline."""
REFUSING_MAX = 64
"""Connections beyond `limits.egress_connections` that are told so at once, instead of waiting for their turn."""

Reason: TypeAlias = RefusalReason | Literal["too_many", "resolver_failed"]
"""Why there is no connection, as the console and the numbers say it. The enclave hears the last two as `unreachable`."""


@dataclass(slots=True)
class EgressNumbers:
    """What egress has done since the start: `open` now, `connected` ever, bytes from and to the enclave, refusals by reason."""

    open: int = 0
    connected: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    refused: Counter[Reason] = field(default_factory=Counter)

    def shown(self) -> dict[str, object]:
        """As `GET /status` has it."""
        return {
            "open": self.open,
            "connected": self.connected,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "refused": dict(sorted(self.refused.items())),
        }


class EgressRelay:
    """Serves connections of the enclave on a hub; `refused` is told of each refusal, for the console, and `numbers` count."""

    def __init__(
        self,
        egress: Egress,
        limits: Limits,
        means: Means,
        *,
        refused: Callable[[Connect, Reason], None],
        resolve: Resolve = by_system,
        dial: Callable[[Work, Sequence[Address], int], Awaitable[Plain]] = dial,
    ) -> None:
        self.numbers = EgressNumbers()
        self._egress = egress
        self._limits = limits
        self._means = means
        self._refused = refused
        self._resolve = resolve
        self._dial = dial

    async def serve(self, work: Work, enclave: Plain) -> None:
        """Serves one connection to its end. Raises what ends a connection (net/hub_accept.py)."""
        numbers = self.numbers
        numbers.open += 1
        try:
            await self._serve(work, enclave)
        finally:
            numbers.open -= 1

    async def _serve(self, work: Work, enclave: Plain) -> None:
        work.within(CONNECT_FRAME_DEADLINE)
        prefix = await receive_exactly(work, enclave, PREFIX_SIZE)
        request = decode_connect(await receive_exactly(work, enclave, remaining_size(prefix)))
        too_many = self.numbers.open > self._limits.egress_connections
        outcome = "too_many" if too_many else await self._open(work, request)
        if not isinstance(outcome, Plain):
            self.numbers.refused[outcome] += 1
            self._refused(request, outcome)
            work.within(CONNECT_FRAME_DEADLINE)
            await send_all(work, enclave, encode_answer(Refused(reason=_on_the_wire(outcome))))
            enclave.end()
            return
        self.numbers.connected += 1
        relayed = await relay(
            work, outcome, enclave, self._means, first=_CONNECTED, linger=self._limits.linger, idle=self._limits.idle
        )
        self.numbers.bytes_in += relayed.left_to_right
        self.numbers.bytes_out += relayed.right_to_left

    async def _open(self, work: Work, request: Connect) -> Plain | Reason:
        work.within(self._limits.connect)
        until = work.deadline
        try:
            named = _address(request.host)
            addresses = await self._look_up(work, request.host) if named is None else [named]
            work.deadline = until
            if not addresses:
                return "name_not_found"
            permitted = [
                address for address in dict.fromkeys(addresses) if is_permitted(address, self._egress, is_named=named is not None)
            ]
            if not permitted:
                return "forbidden"
            return await self._dial(work, permitted[:ATTEMPTS_MAX], request.port)
        except _ResolverFailed:
            return "resolver_failed"
        except (Expired, TimeoutError):
            return "timeout"
        except OSError as error:
            return "refused" if error.errno == errno.ECONNREFUSED else "unreachable"

    async def _look_up(self, work: Work, name: str) -> Sequence[Address]:
        """None where there is no such name. Raises `TimeoutError`, `_ResolverFailed`."""

        async def attempt() -> Sequence[Address] | OSError:
            try:
                return await self._resolve(name)
            except OSError as error:
                return error

        found = await work.call(attempt)
        if isinstance(found, TimeoutError):
            raise found
        if isinstance(found, OSError):
            raise _ResolverFailed from found
        return found


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


_CONNECTED = encode_answer(Connected())


class _ResolverFailed(Exception):
    pass


def _on_the_wire(reason: Reason) -> RefusalReason:
    match reason:
        case "too_many" | "resolver_failed":
            return "unreachable"
        case _:
            return reason
