"""unbound and dnsmasq as allow-listing resolvers, nginx `ssl_preread` as a gate: set up for the rules of policies.py as far as they can.

Each is as strict as its configuration can make it, and has no upstream: a name that is not allowed is refused.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.processes import children, free_port, listens, started, wait_until
from tests.bench.relay import STREAM_MODULE
from tests.bench.site import user_line
from tests.egress.hellos import NAME, hello, sni
from tests.egress.packets import ask
from tests.egress.subject import EXCEPTIONS
from tests.egress.wire import asked, passes

NAMES = ("api.example.com", "db.example.net", "xn--bcher-kva.example", "plain.example", "smtps.example")
SUFFIX, SUFFIX_WITH_APEX = "example.org", "apex.example"
ADDRESS = "127.64.0.1"


@contextmanager
def our_resolver(folder: Path) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(port, processes)."""
    port, log = free_port(), folder / "ours.log"
    with started([sys.executable, "-m", "tests.egress.subject", "resolver", str(port)], log=log) as process:
        wait_until(lambda: asked(port, ask("api.example.com"), seconds=0.2) is not None, process, "our resolver", log)
        yield port, (process.pid,)


@contextmanager
def unbound(folder: Path) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Zones of local data: everything else is refused."""
    port, log = free_port(), folder / "unbound.log"
    zones = "".join(f'local-zone: "{name}." redirect\n  local-data: "{name}. 60 A {ADDRESS}"\n  ' for name in (SUFFIX_WITH_APEX,))
    zones += "".join(f'local-zone: "{name}." static\n  local-data: "{name}. 60 A {ADDRESS}"\n  ' for name in NAMES)
    zones += f'local-zone: "{SUFFIX}." redirect\n  local-data: "{SUFFIX}. 60 A {ADDRESS}"\n  '
    (folder / "unbound.conf").write_text(f"""\
server:
  interface: 127.0.0.1
  port: {port}
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  use-syslog: no
  num-threads: 1
  module-config: "iterator"
  hide-version: yes
  hide-identity: yes
  do-not-query-localhost: no
  local-zone: "." refuse
  {zones}
remote-control:
  control-enable: no
""")
    with started(["unbound", "-d", "-p", "-c", str(folder / "unbound.conf")], log=log) as process:
        wait_until(lambda: asked(port, ask("api.example.com"), seconds=0.2) is not None, process, "unbound", log)
        yield port, (process.pid,)


@contextmanager
def dnsmasq(folder: Path) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Names and suffixes that it answers itself; without a server for others it refuses them."""
    port, log = free_port(), folder / "dnsmasq.log"
    names = [f"--host-record={name},{ADDRESS},60" for name in NAMES]
    suffixes = [f"--address=/{name}/{ADDRESS}" for name in (SUFFIX, SUFFIX_WITH_APEX)]
    command = ["dnsmasq", "-k", f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts"]
    command += ["--conf-file=/dev/null", "--pid-file", "--user=root", "--group=root", "--local-ttl=60", "--cache-size=1000"]
    with started([*command, *names, *suffixes], log=log) as process:
        wait_until(lambda: asked(port, ask("api.example.com"), seconds=0.2) is not None, process, "dnsmasq", log)
        yield port, (process.pid,)


@contextmanager
def our_gate(folder: Path) -> Iterator[dict[str, int]]:
    """Its port for each exception of a rule."""
    ports, log = [free_port() for _ in EXCEPTIONS], folder / "gate.log"
    command = [sys.executable, "-m", "tests.egress.subject", "gate", str(folder), *map(str, ports)]
    with started(command, log=log) as process:
        wait_until(lambda: passes(ports[0], hello(sni(NAME))), process, "our gate", log)
        yield dict(zip(EXCEPTIONS, ports, strict=True))


@contextmanager
def nginx_preread(folder: Path, behind: int) -> Iterator[dict[str, int]]:
    """The same of nginx, which cannot tell an encrypted hello from another: it has no port for that exception."""
    strict, missing, log = free_port(), free_port(), folder / "preread.log"
    (folder / "preread.conf").write_text(f"""\
load_module {STREAM_MODULE};
daemon off; worker_processes 1; {user_line()}
pid {folder}/preread.pid; error_log {log};
events {{ worker_connections 1000; }}
stream {{
  map $ssl_preread_server_name $strict {{ hostnames; default 127.0.0.1:1; api.example.com 127.0.0.1:{behind}; }}
  map $ssl_preread_server_name $missing {{ hostnames; default 127.0.0.1:1; "" 127.0.0.1:{behind}; api.example.com 127.0.0.1:{behind}; }}
  ssl_preread on; preread_timeout 2s; preread_buffer_size 32k; proxy_connect_timeout 1s; proxy_half_close on;
  server {{ listen 127.0.0.1:{strict}; proxy_pass $strict; }}
  server {{ listen 127.0.0.1:{missing}; proxy_pass $missing; }}
}}
""")
    with started(["nginx", "-e", str(log), "-c", str(folder / "preread.conf")], log=log) as process:
        wait_until(lambda: listens(strict) and bool(children(process.pid)), process, "nginx ssl_preread", log)
        yield {"": strict, "missing": missing}
