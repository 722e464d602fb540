"""What the config says of the ingress arrives where it is kept: no key is offered that nothing reads."""

from dataclasses import fields, replace
from typing import Any

import pytest

from runtime.enclave.config_ingress import Ingress, IngressHttp, IngressLimits
from runtime.enclave.traffic.limits import http_policy, ingress_limits

_OF_THE_WORKER = {"request_log", "request_log_sample", "attestation_path"}
"""Keys of `[ingress.http]` that worker/ingress.py reads itself."""


@pytest.mark.parametrize("key", [field.name for field in fields(IngressLimits)])
def test_every_limit_changes_what_the_ingress_keeps(key: str) -> None:
    default = getattr(IngressLimits(), key)
    # `request_burst` has no meaning without a rate; both timeouts of a body are parts of the whole.
    other = 7 if default is None else 3 * default // 2 if isinstance(default, int) else default / 2
    changed = replace(IngressLimits(body_timeout=60), **{key: other})
    unchanged = IngressLimits(body_timeout=60)
    assert ingress_limits(Ingress(limits=changed), share=1) != ingress_limits(Ingress(limits=unchanged), share=1)


@pytest.mark.parametrize("key", [field.name for field in fields(IngressHttp) if field.name not in _OF_THE_WORKER])
def test_every_choice_about_requests_changes_the_policy(key: str) -> None:
    default = getattr(IngressHttp(), key)
    given: dict[str, Any] = {"trusted_headers": ("forwarded",), "methods": ("GET",)}
    changed = replace(IngressHttp(), **{key: given.get(key, not default)})
    assert http_policy(Ingress(http=changed)) != http_policy(Ingress())


def test_workers_share_what_is_counted_and_never_get_nothing() -> None:
    limits = IngressLimits(
        max_connections=9, max_connections_per_address=1, max_requests_in_flight=8, request_rate=2, request_burst=3
    )
    found = ingress_limits(Ingress(limits=limits), share=4)
    assert (found.connections, found.connections_per_address, found.http.in_flight) == (2, 1, 2)
    assert (found.http.rate, found.http.burst) == (0.5, 1)
    assert found.http.exchange.body_size == limits.max_body_size
