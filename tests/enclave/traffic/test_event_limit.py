"""Strangers cannot fill the journal, nor hide what else happens."""

import trio
from trio.testing import MockClock

from runtime.enclave.traffic.event_limit import BURST, RATE, EventLimit


async def test_what_is_over_is_counted_in_the_next_of_its_name_and_others_are_told(autojump_clock: MockClock) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    log = EventLimit(lambda event, fields: told.append((event, fields)))
    for _ in range(BURST + 7):
        log("handshake_failed", code="tls_closed")
    assert told == [("handshake_failed", {"code": "tls_closed"})] * BURST
    log("ingress_ended", code="proxy_signature")
    await trio.sleep(2 / RATE)
    log("handshake_failed", code="tls_alpn")
    log("handshake_failed", code="tls_alpn")
    assert told[BURST:] == [
        ("ingress_ended", {"code": "proxy_signature"}),
        ("handshake_failed", {"code": "tls_alpn", "dropped": 7}),
        ("handshake_failed", {"code": "tls_alpn"}),
    ]
