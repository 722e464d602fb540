"""The bench of the parent's relay of bytes, beside nginx `stream` and socat: CPU per connection and per GB.

Plain HTTP is what is relayed, and nobody reads it on the way. Ours is a whole `enclave parent`; it and nginx write a PROXY header in
front of each connection, socat cannot.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import BenchError, WrkSummary, read_wrk
from tests.bench.ingress import Measured
from tests.bench.processes import children, free_port, listens, settle, started, wait_until
from tests.bench.site import UP_BYTES, Site, user_line
from tests.bench.subjects import Running, Subject
from tests.bench.suite import Extent, Figure, Goal, Measurement, Suite

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_CONNECTIONS = 16
_BULK = 4
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forking(Running):
    """A subject that forks for each connection: what its ended children used counts too, in ticks of the kernel."""

    def cpu_ns(self) -> int:
        settle(self.pids)
        return sum(_with_children(pid) for pid in self.pids)


def _with_children(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_NS


@contextmanager
def _server(site: Site, name: str, *, header: bool) -> Iterator[int]:
    """An nginx behind a subject: a small answer, a large file, a sink. With `header` every connection begins with a PROXY header."""
    port, stem = free_port(), f"{site.folder}/behind-{name}"
    log = Path(f"{stem}.log")
    temporary = " ".join(f"{each}_temp_path {stem}-{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    Path(f"{stem}.conf").write_text(f"""\
daemon off; worker_processes 1; {user_line()}
pid {stem}.pid; error_log {log};
events {{ worker_connections 4096; }}
http {{
  {temporary}
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_buffer_size {UP_BYTES * 2};
  server {{
    listen 127.0.0.1:{port} {"proxy_protocol" if header else ""} backlog=4096; root {site.folder};
    location / {{ return 200 "hello\\n"; }}
    location = /down {{ }}
    location = /up {{
      proxy_pass {site.upstream}/; proxy_method GET; proxy_pass_request_body off; proxy_http_version 1.1;
      proxy_set_header Content-Length ""; proxy_set_header Connection "";
    }}
  }}
}}
""")
    with started(["nginx", "-e", str(log), "-c", f"{stem}.conf"], log=log) as process:
        wait_until(lambda: listens(port), process, "the server behind", log)
        yield port


@contextmanager
def _ours(site: Site) -> Iterator[Running]:
    folder, port = site.folder, free_port()
    log = folder / "parent.log"
    with _server(site, "ours", header=True) as behind:
        (folder / "parent.toml").write_text(f"""\
version = 1
instance_id = "i-0"
[enclave]
id = "bench"
ingress = "tcp:127.0.0.1:{behind}"
[listen]
public = "tcp:127.0.0.1:{port}"
control = "unix:{folder}/control.sock"
egress = "unix:{folder}/egress.sock"
""")
        command = [
            sys.executable,
            "-c",
            "from runtime.cli import main; raise SystemExit(main())",
            "parent",
            f"{folder}/parent.toml",
        ]
        with started(command, log=log) as process:
            wait_until(lambda: listens(port), process, "the parent", log)
            yield Running(name="ours", port=port, pids=(process.pid,))


@contextmanager
def _nginx(site: Site) -> Iterator[Running]:
    port, stem = free_port(), f"{site.folder}/stream"
    log = Path(f"{stem}.log")
    with _server(site, "nginx-stream", header=True) as behind:
        Path(f"{stem}.conf").write_text(f"""\
load_module {STREAM_MODULE};
daemon off; worker_processes 1; {user_line()}
pid {stem}.pid; error_log {log};
events {{ worker_connections {site.descriptors}; }}
stream {{
  server {{
    listen 127.0.0.1:{port} backlog=4096; proxy_pass 127.0.0.1:{behind}; proxy_protocol on; proxy_timeout 600s; tcp_nodelay on;
  }}
}}
""")
        with started(["nginx", "-e", str(log), "-c", f"{stem}.conf"], log=log) as process:
            wait_until(lambda: listens(port), process, "nginx stream", log)
            yield Running(name="nginx-stream", port=port, pids=tuple(children(process.pid)))


@contextmanager
def _socat(site: Site) -> Iterator[Running]:
    port, log = free_port(), site.folder / "socat.log"
    with _server(site, "socat", header=False) as behind:
        command = ["socat", f"TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=4096", f"TCP4:127.0.0.1:{behind}"]
        with started(command, log=log) as process:
            wait_until(lambda: listens(port), process, "socat", log)
            yield Forking(name="socat", port=port, pids=(process.pid,))


OURS = Subject(name="ours", start=_ours)
NGINX = Subject(name="nginx-stream", start=_nginx, needs="nginx", package="nginx-light libnginx-mod-stream")
SOCAT = Subject(name="socat", start=_socat, needs="socat", package="socat")


def _wrk(site: Site, port: int, path: str, extent: Extent, *, connections: int, script: Path, close: bool = False) -> WrkSummary:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{extent.seconds}s", "--timeout", "30s", "-s", str(script)]
    if close:
        command += ["-H", "Connection: close"]
    finished = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, timeout=extent.seconds + 60, check=False
    )
    if finished.returncode != 0:
        raise BenchError(f"wrk failed: {(finished.stdout + finished.stderr)[-300:].strip()!r}")
    return read_wrk(finished.stdout, least=1 if close else 0)


def _connection(site: Site, running: Running, extent: Extent) -> Measured:
    before = running.cpu_ns()
    done = _wrk(site, running.port, "/", extent, connections=_CONNECTIONS, script=site.done, close=True)
    yield "relayed connection", (running.cpu_ns() - before) / done.requests


def _down(site: Site, running: Running, extent: Extent) -> Measured:
    before = running.cpu_ns()
    done = _wrk(site, running.port, "/down", extent, connections=_BULK, script=site.done)
    yield "relayed down", (running.cpu_ns() - before) / done.bytes * 1e9


def _up(site: Site, running: Running, extent: Extent) -> Measured:
    before = running.cpu_ns()
    done = _wrk(site, running.port, "/up", extent, connections=_BULK, script=site.upload)
    yield "relayed up", (running.cpu_ns() - before) / (done.requests * UP_BYTES) * 1e9


def _check(_site: Site, running: Sequence[Running]) -> dict[str, object]:
    return {each.name: "relays" for each in running}


SUITE = Suite(
    name="relay",
    ours=OURS,
    peers=(NGINX, SOCAT),
    measurements=tuple(
        Measurement(name=name, run=run, needs=("wrk", "wrk"))
        for name, run in (("relayed-connection", _connection), ("relayed-down", _down), ("relayed-up", _up))
    ),
    figures=lambda _: [
        Figure(name="relayed connection", title="CPU per connection with one request", unit="µs", scale=1e-3),
        Figure(name="relayed down", title="CPU per GB down", unit="ms", scale=1e-6),
        Figure(name="relayed up", title="CPU per GB up", unit="ms", scale=1e-6),
    ],
    goals=tuple(
        Goal(
            title=f"{title}, ratio to nginx stream",
            most=most,
            unit="x",
            figure=figure,
            values=lambda found, figure=figure: found.ratios(figure, "ours", "nginx-stream"),  # type: ignore[misc]  # a default binds it
        )
        for title, figure, most in (
            ("CPU per connection", "relayed connection", 1.5),
            ("CPU per GB down", "relayed down", 1.0),
            ("CPU per GB up", "relayed up", 1.0),
        )
    ),
    check=_check,
)
