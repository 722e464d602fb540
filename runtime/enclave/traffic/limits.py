"""The measured limits of enclave.toml in the form that the ingress and the egress take."""

from runtime.enclave import config
from runtime.enclave.config_egress import EgressLimits
from runtime.enclave.traffic.egress_road import RoadLimits
from runtime.enclave.traffic.http_exchange import ExchangeLimits
from runtime.enclave.traffic.http_pool import PoolLimits
from runtime.enclave.traffic.http_proxy import HttpLimits
from runtime.enclave.traffic.ingress import IngressLimits
from runtime.enclave.traffic.tcp import TcpLimits


def ingress_limits(measured: config.IngressLimits, *, share: int) -> IngressLimits:
    """Every limit that the config sets, for one of `share` workers; the rest keeps the ingress's own default."""
    return IngressLimits(
        connections=max(1, measured.max_connections // share),
        handshake_timeout=measured.handshake_timeout,
        tcp=TcpLimits(connect_timeout=measured.connect_timeout),
        http=HttpLimits(
            head_size=measured.max_header_size,
            head_timeout=measured.head_timeout,
            keep_alive=measured.idle_timeout,
            pool=PoolLimits(connect_timeout=measured.connect_timeout),
            exchange=ExchangeLimits(
                answer_timeout=measured.response_timeout, body_idle=measured.body_idle_timeout, body_size=measured.max_body_size
            ),
        ),
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
