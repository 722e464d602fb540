"""Our resolver and our gate on ports of their own: `python -m tests.egress.subject resolver PORT`, or `gate FOLDER PORT...`.

What the egress worker runs, log included, without PID 1: lines are dropped. The gate's ports stand for api.example.com port 443, under
a rule without exceptions, with `missing`, and with `encrypted`; behind them everything is echoed.
"""

import socket
import sys
from functools import partial
from pathlib import Path

import trio

from runtime.enclave.traffic.egress_log import EgressLog
from runtime.enclave.traffic.egress_road import Road, RoadLimits
from runtime.enclave.traffic.resolver import LoopbackNames
from runtime.enclave.traffic.resolver_serve import resolver, serve_datagrams
from runtime.net.hub import Hub, Work
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means
from runtime.net.hub_socket import Plain
from tests.egress.outside import outside
from tests.egress.policies import policy

EXCEPTIONS = ("", "missing", "encrypted")


async def serve_names(port: int) -> None:
    """Answers over UDP."""
    rules = policy()
    log = EgressLog(lambda _: None, lambda _: None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", port))
        names = LoopbackNames(rules.exact_names())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            await serve_datagrams(bound, resolver(rules, names, is_link_up=lambda: True, record=log.lookup))


async def serve_gates(folder: Path, ports: list[int]) -> None:
    """One port for each of `EXCEPTIONS`."""
    async with outside(folder) as parent, trio.open_nursery() as nursery:
        hub = Hub()
        await nursery.start(hub.run)
        with Means() as means:
            for exception, port in zip(EXCEPTIONS, ports, strict=True):
                sni = f', sni = ["{exception}"]' if exception else ""
                rules = policy(f'[egress]\nallow = [{{ name = "api.example.com", ports = [443]{sni} }}]\n')
                road = Road(rules, parent.endpoint, means, record=lambda _: None, limits=RoadLimits(hello=2.0))
                Accepting(hub, socket.create_server(("127.0.0.1", port)), partial(_carry, road), limit=1000)
            await trio.sleep_forever()


async def _carry(road: Road, work: Work, plain: Plain) -> None:
    await road.carry(work, plain, "api.example.com", 443)


if __name__ == "__main__":
    if sys.argv[1] == "resolver":
        trio.run(serve_names, int(sys.argv[2]))
    else:
        trio.run(serve_gates, Path(sys.argv[2]), list(map(int, sys.argv[3:])))
