"""The customer's program of the conformance runs: a small HTTP server of the standard library alone, a thread for each connection.

GET /             a small answer, then close
GET /keep         a small answer, the connection is kept
GET /stream?N     N bytes
POST /sink        reads the body and answers how many bytes it had; also after the client ended its half

With --echo it sends back every byte instead. It answers only messages that it understands: what is judged is in front of it.
"""

import socket
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

CHUNK = 256 * 1024
_PIECE = bytes(CHUNK)
_SECURITY = (
    b"Strict-Transport-Security: max-age=63072000; includeSubDomains\r\nX-Content-Type-Options: nosniff\r\n"
    b"X-Frame-Options: DENY\r\nContent-Security-Policy: default-src 'none'\r\nReferrer-Policy: no-referrer\r\n"
)


def serve(connection: socket.socket) -> None:
    """One connection, to its end."""
    with connection, connection.makefile("rb") as stream:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while line := stream.readline(65536):
            method, target, *_ = [*line.split(), b"", b""]
            length, chunked, wants_close = 0, False, False
            while (header := stream.readline(65536)) not in (b"\r\n", b"\n", b""):
                name, _, value = header.partition(b":")
                name, value = name.lower(), value.strip().lower()
                length = int(value) if name == b"content-length" else length
                chunked = chunked or (name == b"transfer-encoding" and value == b"chunked")
                wants_close = wants_close or (name == b"connection" and value == b"close")
            received = read_chunks(stream) if chunked else read_exactly(stream, length)
            path, _, query = target.partition(b"?")
            if path == b"/stream":
                send_stream(connection, int(query))
            else:
                wants_close = wants_close or path == b"/"
                answer(connection, b"%b %d bytes\n" % (method, received), close=wants_close)
            if wants_close:
                return


def read_exactly(stream: BinaryIO, length: int) -> int:
    """Reads and forgets `length` bytes; how many came."""
    rest = length
    while rest and (piece := stream.read(min(rest, CHUNK))):
        rest -= len(piece)
    return length - rest


def read_chunks(stream: BinaryIO) -> int:
    """Reads and forgets a chunked body; its size."""
    total = 0
    while size := int(stream.readline(1024).split(b";")[0], 16):
        total += read_exactly(stream, size)
        stream.readline(1024)
    while stream.readline(65536) not in (b"\r\n", b"\n", b""):
        pass
    return total


def answer(connection: socket.socket, body: bytes, *, close: bool) -> None:
    """A small answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%b" % (len(body), _SECURITY)
    connection.sendall(head + (b"Connection: close\r\n" if close else b"") + b"\r\n" + body)


def send_stream(connection: socket.socket, size: int) -> None:
    """An answer of `size` bytes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size)
    whole, rest = divmod(size, CHUNK)
    for _ in range(whole):
        connection.sendall(_PIECE)
    connection.sendall(_PIECE[:rest])


def echo(connection: socket.socket) -> None:
    """Sends back what comes, to the end."""
    with connection:
        while data := connection.recv(CHUNK):
            connection.sendall(data)


def handle(serve_one: Callable[[socket.socket], None], connection: socket.socket) -> None:
    """A peer that leaves ends its connection and nothing else."""
    try:
        serve_one(connection)
    except (OSError, ValueError):
        connection.close()


def main() -> None:
    """`upstream.py [--echo]`: says its port when it listens."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    serve_one = echo if "--echo" in sys.argv else serve
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    threading.stack_size(256 * 1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(serve_one, connection), daemon=True).start()


if __name__ == "__main__":
    main()
