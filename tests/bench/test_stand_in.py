"""The subject of the ingress bench is the real worker, and what measures it sees it work."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.bench.figures import BenchError
from tests.bench.load import idle_connections
from tests.bench.processes import cpu_ns, pss_kib
from tests.bench.site import ANSWER, Site, prepare
from tests.bench.stand_in import OURS


class Application(BaseHTTPRequestHandler):
    """Gives the small answer of a bench."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """See the class."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def application() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_worker_serves_connections_that_stay_and_its_cpu_and_memory_are_seen(tmp_path: Path) -> None:
    with application() as upstream_port:
        site = Site(folder=tmp_path, upstream_port=upstream_port, descriptors=1024)
        prepare(site)
        with OURS.start(site) as running, idle_connections(site, running.port) as idle:
            before = running.cpu_ns()
            idle.grow_to(3)
            assert running.cpu_ns() > before
            assert pss_kib(running.pids) > 1024
            assert idle.alive() == 3
    with pytest.raises(BenchError, match="has ended"):
        cpu_ns(running.pids)
    assert "'requests': 3" in (tmp_path / "ours.log").read_text()


def test_a_subject_that_does_not_start_says_why(tmp_path: Path) -> None:
    site = Site(folder=tmp_path, upstream_port=1, descriptors=1024)
    with pytest.raises(BenchError, match=r"chain\.pem"), OURS.start(site):
        pass
