"""What a name of the internet stands for, asked at the parent: of the resolvers that parent.toml lists, or of the system's.

An answer is the network's word and may be a lie: the enclave's policy never depends on it (runtime/enclave/traffic/egress_policy.py),
and addresses.py judges every address before it is connected to. Listed resolvers are asked in turn until one answers; who answered
last is asked first. Answers are kept for as long as they say, which dnspython does.
"""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

import trio

from runtime.parent.resolver_address import ResolverAddress
from runtime.protocol.address_kind import Address

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[Address]]]
"""The addresses of a name, none where there is no such name. Raises OSError where nobody could say, `TimeoutError` in silence."""

SERVER_TIMEOUT = 1.0
"""Seconds for one resolver to answer before the next is asked."""
LIFETIME = 8.0
"""Seconds for all of them."""
RESOLUTION_DELAY = 0.05
"""Seconds that addresses of one family wait for those of the other (RFC 8305 section 3)."""
KEPT_ANSWERS = 4096
THREADS = 128
"""Of names that the system looks up at once: of their own, since slow ones must hold up nothing else that needs a thread."""

_threads = trio.CapacityLimiter(THREADS)

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


async def by_system(host: str) -> Sequence[Address]:
    """`Resolve` as the system does it; a text in any of inet_aton's notations is the address that it means.

    Who has lost patience leaves a thread behind until the system has: when all are taken, OSError at once.
    """
    if not _threads.available_tokens:
        raise OSError(errno.EAGAIN, f"{THREADS} names are being looked up")
    # As bytes: Python would put text through IDNA, which raises UnicodeError for a label that is empty or too long.
    look_up = partial(socket.getaddrinfo, host.encode("ascii"), 0, type=socket.SOCK_STREAM)
    try:
        found = await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=_threads)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_NAME:
            return ()
        raise
    return [ip_address(str(address[0])) for *_, address in found]


def by_resolvers(addresses: Sequence[ResolverAddress]) -> Resolve:
    """`Resolve` by these resolvers and no others: neither /etc/hosts nor a search list changes what a name means.

    Raises ValueError without dnspython, which the extra `parent` of the package brings.
    """
    try:
        from dns.asyncresolver import Resolver
        from dns.resolver import LRUCache

        from runtime.parent.egress_upstream import Upstream
    except ImportError as error:
        raise ValueError(f"egress.resolvers needs dnspython (pip install 'enclave-runtime[parent]'): {error}") from None

    def prefer(upstream: Upstream) -> None:
        if resolver.nameservers[0] is not upstream:
            resolver.nameservers = sorted(resolver.nameservers, key=lambda each: each is not upstream)

    resolver = Resolver(configure=False)
    resolver.nameservers = [Upstream(str(each.address), each.port, answered=prefer) for each in addresses]
    resolver.timeout, resolver.lifetime = SERVER_TIMEOUT, LIFETIME
    resolver.cache = LRUCache(KEPT_ANSWERS)
    return partial(_resolve, resolver)


async def _resolve(resolver: "Resolver", host: str) -> Sequence[Address]:
    """Both families at once, IPv6 first; what one of them gave counts though the other failed."""
    found: dict[str, Sequence[Address]] = {}
    errors: list[OSError] = []

    async def ask(kind: str) -> None:
        try:
            found[kind] = await _ask(resolver, host, kind)
        except OSError as error:
            errors.append(error)
        if found.get(kind):
            nursery.cancel_scope.deadline = trio.current_time() + RESOLUTION_DELAY

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "AAAA")
        nursery.start_soon(ask, "A")
    addresses = [address for kind in ("AAAA", "A") for address in found.get(kind, ())]
    if errors and not addresses:
        raise errors[0]
    return addresses


async def _ask(resolver: "Resolver", host: str, kind: str) -> Sequence[Address]:
    from dns.asyncbackend import get_backend
    from dns.exception import DNSException, Timeout
    from dns.resolver import NoNameservers

    try:
        answer = await resolver.resolve(host, kind, raise_on_no_answer=False, search=False, backend=get_backend("trio"))
    except Timeout:
        raise TimeoutError(f"no resolver answered for {host}") from None
    except NoNameservers:
        raise OSError(f"no resolver could answer for {host}") from None
    except DNSException:  # no such name, one that cannot be asked for, a chain of aliases that does not end
        return ()
    return [ip_address(record.to_text()) for record in answer.rrset or ()]
