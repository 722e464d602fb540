"""The measured limits of enclave.toml in the form that the ingress and the egress take."""

import math

from runtime.enclave.config_egress import EgressLimits
from runtime.enclave.config_ingress import Ingress
from runtime.enclave.traffic.egress_road import RoadLimits
from runtime.enclave.traffic.http_exchange import ExchangeLimits
from runtime.enclave.traffic.http_policy import HttpPolicy
from runtime.enclave.traffic.http_pool import PoolLimits
from runtime.enclave.traffic.http_proxy import HttpLimits
from runtime.enclave.traffic.ingress import IngressLimits
from runtime.enclave.traffic.public_evidence import EvidenceLimits
from runtime.enclave.traffic.tcp import TcpLimits


def ingress_limits(measured: Ingress, *, share: int) -> IngressLimits:
    """Every limit that the config sets. Counts are for one of `share` workers, so that all of them together keep the whole."""
    limits = measured.limits
    return IngressLimits(
        connections=max(1, limits.max_connections // share),
        connections_per_address=max(1, limits.max_connections_per_address // share),
        handshake_timeout=limits.handshake_timeout,
        tcp=TcpLimits(connect_timeout=limits.connect_timeout, idle=limits.tcp_idle_timeout),
        http=HttpLimits(
            line_size=limits.max_request_line,
            head_size=limits.max_header_size,
            head_fields=limits.max_header_fields,
            requests=limits.max_requests_per_connection,
            in_flight=max(1, limits.max_requests_in_flight // share),
            rate=None if limits.request_rate is None else limits.request_rate / share,
            burst=max(1, limits.request_burst // share),
            head_timeout=limits.head_timeout,
            keep_alive=limits.idle_timeout,
            send_timeout=limits.send_timeout,
            retry_after=math.ceil(limits.retry_after),
            pool=PoolLimits(connect_timeout=limits.connect_timeout),
            exchange=ExchangeLimits(
                answer_timeout=min(limits.response_timeout, limits.exchange_timeout),
                answer_idle=limits.response_idle_timeout,
                body_idle=limits.body_idle_timeout,
                body_timeout=limits.body_timeout,
                timeout=limits.exchange_timeout,
                body_size=limits.max_body_size,
            ),
        ),
        evidence=EvidenceLimits(
            rate=limits.attestation_rate, burst=limits.attestation_burst, waiting_max=limits.attestation_waiting
        ),
    )


def http_policy(measured: Ingress) -> HttpPolicy:
    """What `[ingress.http]` decides about requests."""
    http = measured.http
    return HttpPolicy(
        methods=frozenset(method.encode("ascii") for method in http.methods),
        trusted_headers=frozenset(name.encode("ascii") for name in http.trusted_headers),
        checks_host=http.check_host,
        answers_request_id=http.answer_request_id,
        logs_query=http.request_log_query,
    )


def road_limits(measured: EgressLimits) -> RoadLimits:
    """Of connections to the outside."""
    return RoadLimits(
        connections=measured.max_connections,
        connect=measured.connect_timeout,
        hello=measured.hello_timeout,
        idle=measured.idle_timeout,
        total=measured.max_duration,
    )
