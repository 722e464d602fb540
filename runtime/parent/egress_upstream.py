"""One resolver that parent.toml lists, and the word that it has answered, for egress_names.py. Loaded only where resolvers are listed."""

from collections.abc import Callable
from typing import Any

from dns.message import QueryMessage
from dns.nameserver import Do53Nameserver
from dns.rcode import NOERROR, NXDOMAIN


class Upstream(Do53Nameserver):
    """A resolver over UDP, and TCP where that does not hold an answer; `answered` is told of each answer that settles a question."""

    def __init__(self, address: str, port: int, *, answered: Callable[["Upstream"], None]) -> None:
        super().__init__(address, port)
        self._answered = answered

    async def async_query(self, request: QueryMessage, *arguments: Any, **options: Any) -> Any:
        """See dnspython. Raises what a socket does, and dns.exception.DNSException."""
        response = await super().async_query(request, *arguments, **options)
        if response.rcode() in (NOERROR, NXDOMAIN):
            self._answered(self)
        return response
