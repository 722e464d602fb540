"""Carries questions and answers of the resolver over UDP and TCP (RFC 1035 section 4.2, RFC 7766).

Runs inside the enclave, as a worker without secrets. The sockets are given to it; who asks is some process of the customer, so
nothing that one sends may stop the answers for another.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import trio

from runtime.enclave.traffic.egress_policy import EgressPolicy
from runtime.enclave.traffic.resolver import Lookup, Names, resolve
from runtime.net.exact import receive_exactly
from runtime.protocol.dns import QUERY_MAX

Resolve: TypeAlias = Callable[[bytes, bool], bytes | None]
"""(message, whether it came over TCP) to the answer, None for none. Raises nothing and does not wait."""

IDLE = 10.0
"""Seconds for each message over TCP to be complete and for its answer to be taken (RFC 7766 section 6.2.3)."""
BURST = 64
"""Datagrams answered before other tasks get a turn."""


def resolver(policy: EgressPolicy, names: Names, *, is_link_up: Callable[[], bool], record: Callable[[Lookup], None]) -> Resolve:
    """The function that both servers ask; `record` gets what became of every message."""

    def answer(data_untrusted: bytes, over_tcp: bool) -> bytes | None:
        found, lookup = resolve(data_untrusted, policy, names, link_up=is_link_up(), over_tcp=over_tcp)
        record(lookup)
        return found

    return answer


async def serve_datagrams(
    bound: socket.socket, answer: Resolve, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answers every datagram that comes to `bound`, until it is cancelled. An answer that the kernel does not take at once is lost,
    as datagrams may be. The socket stays the caller's."""
    bound.setblocking(False)
    task_status.started()
    while True:
        await trio.lowlevel.wait_readable(bound)
        for _ in range(BURST):
            try:
                data, sender = bound.recvfrom(QUERY_MAX + 1)
            except BlockingIOError:
                break
            if (found := answer(data, False)) is not None:
                with suppress(OSError):  # who asked may be gone, or ask faster than it reads: that is its own matter
                    bound.sendto(found, sender)
        await trio.lowlevel.checkpoint()


async def serve_stream(stream: trio.abc.Stream, answer: Resolve) -> None:
    """Answers the messages of one connection in their order, until it ends, takes over `IDLE` for one, or sends what deserves no answer.
    The stream stays the caller's. Raises what the stream raises, and `Malformed` when it ends inside a message."""
    while True:
        with trio.move_on_after(IDLE) as patience:
            prefix = await stream.receive_some(2)
            if not prefix:
                return
            size = int.from_bytes(prefix + await receive_exactly(stream, 2 - len(prefix)), "big")
            if size > QUERY_MAX:
                return
            found = answer(await receive_exactly(stream, size) if size else b"", True)
            if found is None:
                return
            await stream.send_all(len(found).to_bytes(2, "big") + found)
        if patience.cancelled_caught:
            return
