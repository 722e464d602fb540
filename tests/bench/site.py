"""What all subjects of a bench share: a folder, one certificate, one upstream, and what the load generators are started with."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.bench.figures import WRK_DONE, BenchError
from tests.bench.processes import free_port, listens, started, wait_until
from tests.support.certificates import make_ca

NAME = "localhost"
ANSWER = b"hello world, this is a small answer of sixty-four bytes or so.\n"
DOWN_BYTES = 16 << 20
UP_BYTES = 1 << 20

_CLIENT = """\
openssl_conf = openssl
[openssl]
ssl_conf = ssl
[ssl]
system_default = client
[client]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""
"""OpenSSL's configuration of every load generator: it offers one version, suite and group, so that every subject takes the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a bench is made. `chain` has the leaf first, `key` is PKCS#8, both PEM; `both` is one file with the two.

    `descriptors` is how many each process may have, `processor` the one that is set apart for subjects.
    """

    folder: Path
    upstream_port: int
    descriptors: int
    processor: int | None = None

    @property
    def chain(self) -> Path:
        return self.folder / "chain.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def both(self) -> Path:
        return self.folder / "both.pem"

    @property
    def done(self) -> Path:
        """wrk's script that prints its summary."""
        return self.folder / "done.lua"

    @property
    def upload(self) -> Path:
        """The same, with a body of `UP_BYTES` in every request."""
        return self.folder / "upload.lua"

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"

    def client_environment(self, *, proxy_header: bool) -> dict[str, str]:
        """For load generators; with `proxy_header` each connection begins with one, and no TLS session is resumed (preload.c)."""
        environment = {**os.environ, "OPENSSL_CONF": str(self.folder / "client.cnf")}
        if proxy_header:
            environment["LD_PRELOAD"] = str(self.folder / "preload.so")
        return environment


@contextmanager
def made_site(descriptors: int, processor: int | None) -> Iterator[Site]:
    """A folder in memory if there is one, so that no disk is measured; the upstream runs until the end of the block."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="bench-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        site = Site(folder=Path(name), upstream_port=free_port(), descriptors=descriptors, processor=processor)
        site.folder.chmod(0o755)
        prepare(site)
        _compile_preload(site)
        with _upstream(site):
            yield site


def user_line() -> str:
    """nginx's workers are whoever started nginx: they read the folder."""
    return "user root;" if os.geteuid() == 0 else ""


def prepare(site: Site) -> None:
    """Writes the certificate, P-256 with an intermediate as an authority would give it, and what the load generators read."""
    identity = make_ca("bench root", datetime.now(UTC)).intermediate("bench intermediate").issue((NAME,))
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in identity.chain)
    key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    site.chain.write_bytes(chain)
    site.key.write_bytes(key)
    site.both.write_bytes(chain + key)
    (site.folder / "client.cnf").write_text(_CLIENT)
    site.done.write_text(WRK_DONE)
    site.upload.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {UP_BYTES})\n{WRK_DONE}')


def _compile_preload(site: Site) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("a C compiler is needed for preload.c (Debian: apt-get install gcc libc6-dev)")
    source, target = Path(__file__).with_name("preload.c"), site.folder / "preload.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode != 0:
        raise BenchError(f"preload.c cannot be compiled: {compiled.stderr[-500:].strip()}")


@contextmanager
def _upstream(site: Site) -> Iterator[None]:
    """One nginx for all: a small answer, a large file, a sink that takes in a whole body before it answers, and what it was sent."""
    if shutil.which("nginx") is None:
        raise BenchError("nginx is needed, also as the upstream of all (Debian: apt-get install nginx-light)")
    with (site.folder / "down").open("wb") as file:
        file.write(os.urandom(1 << 20) * (DOWN_BYTES >> 20))
    config, log = site.folder / "upstream.conf", site.folder / "upstream.log"
    config.write_text(f"""\
daemon off; worker_processes 1; {user_line()}
pid {site.folder}/upstream.pid; error_log {log};
events {{ worker_connections {site.descriptors}; }}
http {{
  access_log off; default_type text/plain; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_buffer_size {UP_BYTES * 2}; client_body_temp_path {site.folder}/upstream-body;
  proxy_temp_path {site.folder}/upstream-proxy;
  fastcgi_temp_path {site.folder}/f; uwsgi_temp_path {site.folder}/u; scgi_temp_path {site.folder}/s;
  upstream itself {{ server 127.0.0.1:{site.upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{site.upstream_port} backlog=4096; root {site.folder};
    location / {{ return 200 "{ANSWER.decode()[:-1]}\\n"; }}
    location = /down {{ }}
    location = /up {{
      proxy_pass http://itself/; proxy_method GET; proxy_pass_request_body off; proxy_http_version 1.1;
      proxy_set_header Content-Length ""; proxy_set_header Connection "";
    }}
    location = /told {{
      return 200 "x-forwarded-for $http_x_forwarded_for\\nx-request-id $http_x_request_id\\ntraceparent $http_traceparent\\n";
    }}
  }}
}}
""")
    with started(["nginx", "-e", str(log), "-c", str(config)], log=log) as process:
        wait_until(lambda: listens(site.upstream_port), process, "the upstream", log)
        yield
