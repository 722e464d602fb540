"""nginx and haproxy as an operator would put them where our ingress stands: TLS ends there, and requests go to one upstream.

One worker, PROXY v2 in front of every connection, TLS 1.2 and 1.3, tickets, keep-alive to the upstream, forwarding headers, one log
record for each request into a file in memory. What is set beyond that is there so that a body streams, as it does through ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.processes import children, free_port, listens, started, wait_until
from tests.bench.site import NAME, Site, user_line
from tests.bench.subjects import Running, Subject

_SUITES_12 = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
_SUITES_13 = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_NGINX_LOG = (
    "{'time':'$time_iso8601','client':'$proxy_protocol_addr','method':'$request_method','path':'$uri','status':$status,"
    "'in':$request_length,'out':$body_bytes_sent,'seconds':$request_time,'upstream':'$upstream_response_time',"
    "'tls':'$ssl_protocol','id':'$request_id','resumed':'$ssl_session_reused'}"
)
RESUMED = "'resumed':'r'"
"""In nginx's log, of a connection whose TLS session was resumed."""

_PLAIN = "proxy_max_temp_file_size 0;"
_TUNED = "proxy_buffering on; proxy_max_temp_file_size 0; proxy_buffer_size 16k; proxy_buffers 8 64k; proxy_busy_buffers_size 256k;"


@contextmanager
def _nginx(site: Site, *, name: str, logs: bool, tuning: str) -> Iterator[Running]:
    port, folder = free_port(), site.folder
    stem = f"{name}-{port}"
    config, log, access = (folder / f"{stem}.{ending}" for ending in ("conf", "log", "access"))
    temporary = " ".join(
        f"{each}_temp_path {folder}/{stem}-{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(f"""\
daemon off; worker_processes 1; {user_line()}
pid {folder}/{stem}.pid; error_log {log};
events {{ worker_connections {site.descriptors}; }}
http {{
  {temporary}
  log_format record "{_NGINX_LOG}";
  access_log {f"{access} record" if logs else "off"};
  keepalive_timeout 600s;
  upstream application {{ server 127.0.0.1:{site.upstream_port}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} ssl proxy_protocol backlog=4096;
    server_name {NAME};
    ssl_certificate {site.chain}; ssl_certificate_key {site.key};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {_SUITES_12}; ssl_conf_command Ciphersuites {_SUITES_13};
    ssl_session_tickets on; ssl_session_cache none;
    client_max_body_size 0;
    location / {{
      proxy_pass http://application; proxy_http_version 1.1; proxy_request_buffering off; {tuning}
      proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_protocol_addr; proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-Host $host; proxy_set_header Forwarded "for=$proxy_protocol_addr;proto=https";
      proxy_set_header X-Request-Id $request_id;
    }}
  }}
}}
""")
    with started(["nginx", "-e", str(log), "-c", str(config)], log=log) as process:
        wait_until(lambda: bool(children(process.pid)) and listens(port), process, name, log)
        pids = (process.pid, *children(process.pid))
        yield Running(name=name, port=port, pids=pids, logs=(access,) if logs else ())


@contextmanager
def _haproxy(site: Site) -> Iterator[Running]:
    port, folder = free_port(), site.folder
    config, log = folder / f"haproxy-{port}.cfg", folder / f"haproxy-{port}.log"
    config.write_text(f"""\
global
  nbthread 1
  maxconn {site.descriptors - 1000}
  no strict-limits
  log stdout format raw local0 info
  ssl-default-bind-options ssl-min-ver TLSv1.2 prefer-client-ciphers
  ssl-default-bind-ciphers {_SUITES_12}
  ssl-default-bind-ciphersuites {_SUITES_13}
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend public
  bind 127.0.0.1:{port} accept-proxy ssl crt {site.both} alpn http/1.1 backlog 4096
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Forwarded for=%[src];proto=https
  http-request set-header X-Request-Id %[uuid()]
  default_backend application
backend application
  http-reuse always
  server application 127.0.0.1:{site.upstream_port}
""")
    with started(["haproxy", "-db", "-f", str(config)], log=log) as process:
        wait_until(lambda: listens(port), process, "haproxy", log)
        yield Running(name="haproxy", port=port, pids=(process.pid,), logs=(log,))


def access_log(running: Running) -> Path | None:
    """Where a subject of nginx writes its records."""
    return running.logs[0] if running.name == "nginx" else None


NGINX = Subject(
    name="nginx", start=lambda site: _nginx(site, name="nginx", logs=True, tuning=_PLAIN), needs="nginx", package="nginx-light"
)
NGINX_TUNED = Subject(
    name="nginx-tuned",
    start=lambda site: _nginx(site, name="nginx-tuned", logs=False, tuning=_TUNED),
    needs="nginx",
    package="nginx-light",
)
HAPROXY = Subject(name="haproxy", start=_haproxy, needs="haproxy", package="haproxy")
