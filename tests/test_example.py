"""The example customer program of config/example, run as it is, on a port that the kernel chooses."""

import hashlib
import http.client
import http.server
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

FOLDER = Path(__file__).parents[1] / "config" / "example"
Server: TypeAlias = "tuple[subprocess.Popen[str], int]"


@pytest.fixture(name="local_api")
def fixture_local_api() -> Iterator[int]:
    """Answers every POST with a document that ends in what was asked."""

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = b"document " + self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(name="server")
def fixture_server(local_api: int) -> Iterator[Server]:
    places = f"server.ADDRESS = ('127.0.0.1', 0); server.LOCAL_API = 'http://127.0.0.1:{local_api}/attestation-doc'"
    with subprocess.Popen(
        [sys.executable, "-c", f"import server; {places}; server.main()"],
        cwd=FOLDER,
        env={"GREETING_KEY": "a secret", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rsplit(":", 1)[1])
        process.kill()


def request(server: Server, method: str, path: str, **details: object) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server[1], timeout=10)
    try:
        connection.request(method, path, **details)  # type: ignore[arg-type]  # keyword arguments as the caller wrote them
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_the_front_page_shows_the_request_and_never_the_secret(server: Server) -> None:
    status, body = request(server, "GET", "/some/path", headers={"X-Forwarded-For": "192.0.2.7"})
    assert status == 200
    assert b"path: /some/path\nforwarded for: 192.0.2.7\n" in body
    assert hashlib.sha256(b"a secret").hexdigest()[:16].encode() in body
    assert b"a secret" not in body


def test_the_attestation_page_shows_the_document_of_the_local_api(server: Server) -> None:
    status, body = request(server, "GET", "/attestation")
    size = len(b'document {"challenge": ""}') + 44
    assert (status, body.splitlines()[0]) == (200, f"attestation document: {size} bytes".encode())


def test_a_body_comes_back_by_length_and_in_chunks(server: Server) -> None:
    body = bytes(range(256)) * 1000
    assert request(server, "POST", "/echo", body=body) == (200, body)
    assert request(server, "POST", "/echo", body=iter([body[:7], body[7:]]), encode_chunked=True) == (200, body)
    assert request(server, "POST", "/other", body=body[:10])[0] == 404


def test_sigterm_ends_it_cleanly(server: Server) -> None:
    process, _ = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
