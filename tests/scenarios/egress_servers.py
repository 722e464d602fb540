"""What is outside in the scenarios of egress: real servers on this machine, reached by name through a parent that records."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp, connect
from runtime.protocol.egress_frames import Connect
from runtime.simulator.hostile_parent import Dial
from tests.scenarios.world import SERVER_NAME, World
from tests.support.certificates import make_ca


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name is the base class's
        pass


class _Postgres(StreamRequestHandler):
    """As much of PostgreSQL's protocol 3 (its manual, chapter "Message Flow") as psql needs for one question."""

    def handle(self) -> None:
        while (size := int.from_bytes(self.rfile.read(4), "big")) and (body := self.rfile.read(size - 4)):
            if body[:4] != b"\x04\xd2\x16\x2f" and body[:4] != b"\x04\xd2\x16\x30":
                break
            self.wfile.write(b"N")  # no TLS, no GSSAPI
        self._say(b"R", bytes(4))
        self._say(b"Z", b"I")
        while kind := self.rfile.read(1):
            self.rfile.read(int.from_bytes(self.rfile.read(4), "big") - 4)
            if kind == b"Q":
                self._say(b"T", b"\0\1answer\0" + bytes(6) + b"\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")
                self._say(b"D", b"\0\1\0\0\0\2" + b"42")
                self._say(b"C", b"SELECT 1\0")
                self._say(b"Z", b"I")
            elif kind == b"X":
                return

    def _say(self, kind: bytes, body: bytes) -> None:
        self.wfile.write(kind + (len(body) + 4).to_bytes(4, "big") + body)
        self.wfile.flush()


@contextmanager
def _running(server: ThreadingTCPServer | ThreadingHTTPServer) -> Iterator[int]:
    server.daemon_threads = True
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _tls(folder: Path, names: tuple[str, ...]) -> SSLContext:
    authority = make_ca("outside", utc_now())
    identity = authority.issue(names)
    certificate, key = folder / "outside.pem", folder / "outside.key"
    certificate.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in identity.chain))
    key.write_bytes(identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    return context


@contextmanager
def servers(folder: Path, *, names: tuple[str, ...]) -> Iterator[dict[str, int]]:
    """Ports by kind: "https" for these names, "http", "postgres". `folder` gets `ca.pem`; `hello.txt` and `repository.git` are served."""
    shown = folder / "shown"
    shown.mkdir(parents=True)
    (shown / "hello.txt").write_text("hello from outside\n")
    git = partial(subprocess.run, check=True, capture_output=True)
    work = folder / "work"
    git(["git", "init", "-q", "-b", "main", str(work)])
    author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    git(["git", "-C", str(work), *author, "commit", "-q", "--allow-empty", "-m", "a commit from outside"])
    git(["git", "clone", "-q", "--bare", str(work), str(shown / "repository.git")])
    git(["git", "-C", str(shown / "repository.git"), "update-server-info"])
    files = partial(_Files, directory=str(shown))
    with ExitStack() as stack:
        secure = ThreadingHTTPServer(("127.0.0.1", 0), files)
        secure.socket = _tls(folder, names).wrap_socket(secure.socket, server_side=True)
        yield {
            "https": stack.enter_context(_running(secure)),
            "http": stack.enter_context(_running(ThreadingHTTPServer(("127.0.0.1", 0), files))),
            "postgres": stack.enter_context(_running(ThreadingTCPServer(("127.0.0.1", 0), _Postgres))),
        }


def dialling(world: World, places: dict[tuple[str, int], int], asked: list[Connect]) -> Dial:
    """What a parent connects to: the provisioner, and these places; everything that it was asked for is kept."""

    async def dial(wanted: Connect) -> trio.SocketStream:
        if wanted.host == SERVER_NAME:
            return await world.dial()
        asked.append(wanted)
        if (wanted.host, wanted.port) not in places:
            raise ConnectionRefusedError
        return await connect(Tcp("127.0.0.1", places[wanted.host, wanted.port]))

    return dial
