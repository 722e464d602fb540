"""The bench of the ingress in mode `http`, beside nginx and haproxy: what is measured, and what is to be reached.

CPU is that of a subject's own processes, user space and kernel, over a whole run of a load generator.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from tests.bench import load
from tests.bench.figures import BenchError, Results, ratios
from tests.bench.idle import connect
from tests.bench.ingress_peers import HAPROXY, NGINX, NGINX_TUNED, RESUMED, access_log
from tests.bench.processes import pss_kib, settle
from tests.bench.site import NAME, UP_BYTES, Site
from tests.bench.stand_in import OURS
from tests.bench.subjects import Running
from tests.bench.suite import Extent, Figure, Goal, Measurement, Suite

Measured: TypeAlias = Iterator[tuple[str, float]]

ACTIVE = 50
BULK = 4
RATE = 1000
_FIRST_HELD = 100
_CLOSE = ("Connection: close",)
_MANY = 10_000


def _opening_ns(site: Site, running: Running) -> int:
    """CPU of `ACTIVE` new connections with one request each: a run of keep-alive requests begins with them, and is not about them."""
    before = running.cpu_ns()
    with load.idle_connections(site, running.port) as idle:
        idle.grow_to(ACTIVE)
    return running.cpu_ns() - before


def per_request(cpu_ns: int, opening_ns: int, requests: int) -> float:
    """Nanoseconds. Raises `BenchError` where opening the connections was most of the work, as on a machine that is too busy."""
    if 2 * opening_ns > cpu_ns:
        raise BenchError(f"{requests} requests on {ACTIVE} connections are too few to tell what one costs: is this machine busy?")
    return (cpu_ns - opening_ns) / (requests - ACTIVE)


def _request(site: Site, running: Running, extent: Extent) -> Measured:
    opening = _opening_ns(site, running)
    before, beside = running.cpu_ns(), running.beside_ns()
    done = load.wrk(site, running.port, "/", connections=ACTIVE, seconds=extent.seconds)
    yield "request", per_request(running.cpu_ns() - before, opening, done.requests)
    if running.beside:
        yield "request beside", (running.beside_ns() - beside) / done.requests


def _connection(site: Site, running: Running, extent: Extent) -> Measured:
    before = running.cpu_ns()
    done = load.wrk(site, running.port, "/", connections=ACTIVE, seconds=extent.seconds, headers=_CLOSE)
    log = access_log(running)
    if log is not None and RESUMED in log.read_text(errors="replace"):
        raise BenchError("the load generator resumes TLS sessions: these are no new connections")
    yield "connection", (running.cpu_ns() - before) / done.requests


def _down(site: Site, running: Running, extent: Extent) -> Measured:
    before = running.cpu_ns()
    done = load.wrk(site, running.port, "/down", connections=BULK, seconds=extent.seconds, least=0)
    yield "down", (running.cpu_ns() - before) / done.bytes * 1e9


def _up(site: Site, running: Running, extent: Extent) -> Measured:
    before = running.cpu_ns()
    done = load.wrk(site, running.port, "/up", connections=BULK, seconds=extent.seconds, uploads=True)
    yield "up", (running.cpu_ns() - before) / (done.requests * UP_BYTES) * 1e9


def _at_rate(site: Site, url: str, extent: Extent) -> load.AtRate:
    return load.at_rate(site, url, connections=ACTIVE, per_second=RATE, seconds=extent.seconds)


def _latency_direct(site: Site, extent: Extent) -> dict[str, float]:
    measured = _at_rate(site, f"{site.upstream}/", extent)
    return {"p50 beside 0": measured.p50 * 1e3, "p99 beside 0": measured.p99 * 1e3}


def _latency(site: Site, running: Running, extent: Extent) -> Measured:
    """Beside more and more idle connections, so that each step is compared with the one before it."""
    opening = _opening_ns(site, running)
    with load.idle_connections(site, running.port) as idle:
        for count in extent.idle:
            idle.grow_to(count)
            before = running.cpu_ns()
            measured = _at_rate(site, f"https://{NAME}:{running.port}/", extent)
            used = running.cpu_ns() - before
            _require_alive(idle, count)
            yield f"cpu beside {count}", per_request(used, opening, measured.requests)
            yield f"p50 beside {count}", measured.p50 * 1e3
            yield f"p99 beside {count}", measured.p99 * 1e3
    settle(running.pids)


def _memory(site: Site, running: Running, extent: Extent) -> Measured:
    """Of what came to be between a number of connections and many more, so that what is loaded at the first ones does not count."""
    with load.idle_connections(site, running.port) as idle:
        idle.grow_to(_FIRST_HELD)
        settle(running.pids)
        before = pss_kib(running.pids)
        idle.grow_to(_FIRST_HELD + extent.held)
        settle(running.pids)
        grown = pss_kib(running.pids) - before
        _require_alive(idle, _FIRST_HELD + extent.held)
    yield "memory", grown / extent.held


def _require_alive(idle: load.Idle, count: int) -> None:
    alive = idle.alive()
    if alive != count:
        raise BenchError(f"{count - alive} of {count} idle connections were closed by the subject")


def _figures(extent: Extent) -> list[Figure]:
    return [
        Figure(name="request", title="CPU per keep-alive request", unit="µs", scale=1e-3),
        Figure(name="connection", title="CPU per new TLS connection, one request", unit="µs", scale=1e-3),
        Figure(name="down", title="CPU per GB down", unit="ms", scale=1e-6),
        Figure(name="up", title="CPU per GB up", unit="ms", scale=1e-6),
        Figure(name="added p50 beside 0", title=f"added p50 at {RATE} requests/s", unit="µs", scale=1e-3),
        Figure(name="added p99 beside 0", title=f"added p99 at {RATE} requests/s", unit="µs", scale=1e-3),
        Figure(name="memory", title="memory per idle TLS connection", unit="KiB"),
        *(
            Figure(name=f"{key} beside {count}", title=f"{title} at {RATE}/s beside {count} idle", unit="µs", scale=1e-3)
            for key, title in (("cpu", "CPU per request"), ("p99", "p99"))
            for count in extent.idle
        ),
        Figure(name="request beside", title="PID 1's own CPU per request (log)", unit="µs", scale=1e-3),
    ]


def _check(site: Site, running: Sequence[Running]) -> dict[str, object]:
    """What each subject agrees on with a client, which is to be the same for all, and which headers it makes."""
    facts: dict[str, object] = {}
    agreed = {}
    for each in running:
        agreed[each.name] = load.handshake(site, each.port)
        facts[each.name] = {
            "version": agreed[each.name].version,
            "suite": agreed[each.name].suite,
            "group": agreed[each.name].group,
            "signature": agreed[each.name].signature,
            "headers made": _headers_made(each),
        }
    if len(set(agreed.values())) > 1:
        raise BenchError(f"the subjects do not agree on the same TLS parameters: {agreed}")
    return facts


def _headers_made(running: Running) -> list[str]:
    """Of those that the upstream knows to tell of."""
    with connect(running.port, 0) as client:
        client.sendall(f"GET /told HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b"")).decode(errors="replace")
    if not answer.startswith("HTTP/1.1 200"):
        raise BenchError(f"{running.name} does not serve: {answer[:200]!r}")
    told = (line.partition(" ") for line in answer.splitlines()[1:])
    return [name for name, _, value in told if name in {"x-forwarded-for", "x-request-id", "traceparent"} and value]


def _slower_beside_idle(results: Results) -> list[float]:
    return ratios(results.of(f"p99 beside {_MANY}", OURS.name), results.of("p99 beside 0", OURS.name))


SUITE = Suite(
    name="ingress",
    ours=OURS,
    peers=(NGINX, HAPROXY),
    more_peers=(NGINX_TUNED,),
    measurements=(
        Measurement(name="request", run=_request, needs=("wrk", "wrk")),
        Measurement(name="connection", run=_connection, needs=("wrk", "wrk")),
        Measurement(name="down", run=_down, needs=("wrk", "wrk")),
        Measurement(name="up", run=_up, needs=("wrk", "wrk")),
        Measurement(name="memory", run=_memory, fresh=True, leaves_out=frozenset({"nginx-tuned"})),
        Measurement(
            name="latency",
            run=_latency,
            baseline=_latency_direct,
            needs=("h2load", "nghttp2-client"),
            leaves_out=frozenset({"nginx-tuned"}),
        ),
    ),
    figures=_figures,
    goals=(
        Goal(
            title="CPU per keep-alive request, ratio to nginx",
            most=1.3,
            unit="x",
            figure="request",
            values=lambda found: found.ratios("request", "ours", "nginx"),
        ),
        Goal(
            title="CPU per new TLS 1.3 connection with one request, ratio to nginx",
            most=1.4,
            unit="x",
            figure="connection",
            values=lambda found: found.ratios("connection", "ours", "nginx"),
        ),
        Goal(
            title="CPU per GB down, ratio to nginx",
            most=0.6,
            unit="x",
            figure="down",
            values=lambda found: found.ratios("down", "ours", "nginx"),
        ),
        Goal(title="memory per idle TLS connection", most=48, unit="KiB", values=lambda found: found.of("memory", "ours")),
        Goal(title="p99 beside 10 000 idle connections, ratio to that without", most=1.5, unit="x", values=_slower_beside_idle),
    ),
    check=_check,
)
