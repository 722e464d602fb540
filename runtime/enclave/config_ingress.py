"""`[ingress]` of enclave.toml: what of the outside reaches the customer's processes, how, and how much of it at once.

Runs inside the enclave and in the tools around it. Every limit has a default with which a stranger can neither hold what others need
nor wait here for ever. Counts hold for all workers together: each of them keeps its share.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from runtime.enclave.config_values import Wait, unique
from runtime.net.endpoint import Endpoint, Tcp, Vsock
from runtime.settings import Duration, KeyProblem, Pattern, Range, Size

LongWait: TypeAlias = Annotated[Duration, Range(1, 86400)]
Count: TypeAlias = Annotated[int, Range(1, 1_000_000)]
TrustedHeader: TypeAlias = Literal[
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "x-request-id"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressLimits:
    """`[ingress.limits]`: how long a client, and the process behind, may take; how much one client, and all together, may have."""

    handshake_timeout: Wait = 10.0
    head_timeout: Wait = 10.0
    idle_timeout: Wait = 60.0
    body_idle_timeout: Wait = 30.0
    body_timeout: LongWait = 1800.0
    send_timeout: Wait = 60.0
    connect_timeout: Wait = 5.0
    response_timeout: Wait = 60.0
    response_idle_timeout: Wait = 300.0
    exchange_timeout: LongWait = 3600.0
    tcp_idle_timeout: LongWait | None = None
    max_connections: Count = 4096
    max_connections_per_address: Count = 1024
    max_requests_in_flight: Count = 1024
    max_requests_per_connection: Count = 1000
    max_request_line: Annotated[Size, Range(256, 64 * 1024)] = 8 * 1024
    max_header_size: Annotated[Size, Range(1024, 1 << 20)] = 32 * 1024
    max_header_fields: Annotated[int, Range(8, 1000)] = 100
    max_body_size: Annotated[Size, Range(0, 1 << 50)] = 1 << 30
    request_rate: Count | None = None
    request_burst: Count = 100
    attestation_rate: Count = 5
    attestation_burst: Count = 20
    attestation_waiting: Annotated[int, Range(0, 10_000)] = 64
    retry_after: Annotated[Duration, Range(1, 3600)] = 5.0

    def __post_init__(self) -> None:
        if self.max_request_line > self.max_header_size:
            raise KeyProblem("must not be over max_header_size, of which it is a part", "max_request_line")
        if self.body_timeout > self.exchange_timeout:
            raise KeyProblem("must not be over exchange_timeout, of which it is a part", "body_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressHttp:
    """`[ingress.http]`: what mode "http" does with requests. Forwarding headers from outside are dropped unless named as trusted."""

    trusted_headers: tuple[TrustedHeader, ...] = ()
    methods: tuple[Annotated[str, Pattern(r"[A-Z][A-Z_-]{0,31}", "a method in upper case")], ...] = ()
    check_host: bool = True
    answer_request_id: bool = False
    request_log: bool = True
    request_log_sample: Count = 1
    request_log_query: bool = False
    attestation_path: Annotated[str, Pattern(r"/[A-Za-z0-9._~/-]+", "a path of plain characters")] = "/.well-known/attestation"

    def __post_init__(self) -> None:
        unique(self.trusted_headers, "trusted_headers")
        unique(self.methods, "methods")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """`[ingress]`: what of the outside reaches the customer's processes, and how. `vsock_port` is where the parent brings it.

    `not_ready`: what clients get while the processes are not ready. `proxy_protocol`: whether each connection to the process begins
    with a PROXY v2 header that says what the parent said.
    """

    mode: Literal["http", "tcp", "passthrough", "off"] = "off"
    upstream: Endpoint | None = None
    vsock_port: Annotated[int, Range(1, 2**32 - 2)] = 8443
    workers: Annotated[int, Range(1, 64)] | Literal["auto"] = "auto"
    not_ready: Literal["answer", "close"] = "answer"
    proxy_protocol: bool = False
    limits: IngressLimits = IngressLimits()
    http: IngressHttp = IngressHttp()

    def __post_init__(self) -> None:
        if (self.upstream is None) != (self.mode == "off"):
            problem = (
                'is missing: it says where traffic goes, such as "tcp:127.0.0.1:8080"'
                if self.mode != "off"
                else 'needs a mode, such as "http"'
            )
            raise KeyProblem(problem, "upstream")
        if isinstance(self.upstream, Vsock) or (isinstance(self.upstream, Tcp) and self.upstream.port == 0):
            raise KeyProblem("must be tcp:HOST:PORT or unix:PATH, inside the enclave", "upstream")
