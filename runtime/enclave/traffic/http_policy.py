"""What the measured config lets through of requests that are well-formed: methods, and names that this certificate stands for. Pure."""

from dataclasses import dataclass
from functools import lru_cache

from runtime.enclave.traffic.http_heads import RequestHead
from runtime.enclave.traffic.refusal import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """`methods` go on, any when there are none; `trusted_headers` of a client's are believed, names in lower case."""

    methods: frozenset[bytes] = frozenset()
    trusted_headers: frozenset[bytes] = frozenset()
    checks_host: bool = True
    answers_request_id: bool = False
    logs_query: bool = False


def objection_to(head: RequestHead, policy: HttpPolicy, served: tuple[str, ...]) -> Refusal | None:
    """Why the customer process does not get this request; `served` are the names that the connection's certificate is served for."""
    if policy.methods and head.method not in policy.methods:
        return Refusal(501, "method_not_supported", "this method is not among those that go on")
    if policy.checks_host and served and not _is_served(head.host, served):
        return Refusal(421, "misdirected_request", "this connection's certificate is not for the name in Host")
    return None


@lru_cache(maxsize=1024)
def _is_served(host: bytes, served: tuple[str, ...]) -> bool:
    """Whether the name in Host is one of `served` (RFC 9110 section 7.4); an address never is, for there are only names."""
    name = host.decode("ascii").lower()
    if not name.startswith("["):
        name = name.partition(":")[0].removesuffix(".")
    return any(each.lower() in (name, f"*.{name.partition('.')[2]}") for each in served)
