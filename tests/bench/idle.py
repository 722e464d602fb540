"""Holds idle TLS connections: `python -m tests.bench.idle PORT`, told on its input how many there are to be.

Each has made one request, as a client has that keeps its connection for the next one. Its answers are lines of JSON: how many there are,
and to "alive" how many the server has not closed.
"""

import gc
import json
import select
import socket
import ssl
import sys

from runtime.protocol.proxy_header import ProxyHeader, encode_proxy_header
from tests.bench.site import ANSWER, NAME

_REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
_TIMEOUT = 30.0
_PER_SOURCE = 4000
"""Connections from one address of the loopback, so that its ports suffice."""
_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python names it from 3.12 on


_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname = False
_CONTEXT.verify_mode = ssl.CERT_NONE


def main(port: int) -> None:
    """Until the end of the input."""
    gc.disable()
    held: list[ssl.SSLSocket] = []
    for line in sys.stdin:
        if line.strip() == "alive":
            _say(sum(_is_open(each) for each in held))
            continue
        try:
            while len(held) < int(line):
                held.append(_asked(connect(port, len(held))))
        except OSError as error:
            sys.stderr.write(f"connection {len(held) + 1}: {error}\n")
        _say(len(held))


def connect(port: int, number: int) -> ssl.SSLSocket:
    """A TLS connection with a PROXY header in front; `number` makes its addresses. Raises OSError."""
    plain = socket.socket()
    try:
        plain.settimeout(_TIMEOUT)
        plain.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        plain.bind((f"127.0.0.{2 + number // _PER_SOURCE}", 0))
        plain.connect(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = f"198.19.{number // 250 % 250}.{1 + number % 250}"
        plain.sendall(encode_proxy_header(ProxyHeader(source=(client, 1024 + number), destination=("127.0.0.1", port))))
        return _CONTEXT.wrap_socket(plain, server_hostname=NAME)
    except BaseException:
        plain.close()
        raise


def _asked(client: ssl.SSLSocket) -> ssl.SSLSocket:
    try:
        client.sendall(_REQUEST)
        received = b""
        while not received.endswith(ANSWER):
            data = client.recv(4096)
            if not data:
                raise ConnectionError(f"ended after {received[:100]!r}")
            received += data
    except BaseException:
        client.close()
        raise
    return client


def _is_open(held: ssl.SSLSocket) -> bool:
    poll = select.poll()
    poll.register(held, select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)


def _say(count: int) -> None:
    sys.stdout.write(json.dumps(count) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
