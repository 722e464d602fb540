"""The example customer program: an ordinary small HTTP server, which knows nothing of enclaves except on one page.

GET /             a greeting, what the request looked like, and the start of the digest of the secret GREETING_KEY (never the secret)
GET /attestation  asks the local API for an attestation document and shows its size and digest
POST /echo        sends the body back as it comes in
"""

import base64
import hashlib
import json
import os
import signal
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = ("127.0.0.1", 8080)
LOCAL_API = "http://127.0.0.1:9999/attestation-doc"


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive between requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/attestation":
            self.answer(*attestation())
            return
        secret = os.environ.get("GREETING_KEY")
        digest = hashlib.sha256(secret.encode()).hexdigest()[:16] if secret is not None else "none"
        forwarded = self.headers.get("X-Forwarded-For", "nobody")
        self.answer(200, f"Hello from inside.\npath: {self.path}\nforwarded for: {forwarded}\ngreeting key: {digest}\n")

    def do_POST(self):
        if self.path != "/echo":
            self.close_connection = True
            self.answer(404, "not found\n")
            return
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self.start({"Transfer-Encoding": "chunked"})
            for piece in self.chunks():
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        length = int(self.headers.get("Content-Length", 0))
        self.start({"Content-Length": length})
        while length > 0 and (piece := self.rfile.read1(min(length, 65536))):
            self.wfile.write(piece)
            length -= len(piece)

    def chunks(self):
        while size := int(self.rfile.readline().split(b";")[0], 16):
            while size > 0 and (piece := self.rfile.read1(min(size, 65536))):
                size -= len(piece)
                yield piece
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass

    def start(self, headers, status=200):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def answer(self, status, text):
        body = text.encode()
        self.start({"Content-Type": "text/plain; charset=utf-8", "Content-Length": len(body)}, status)
        self.wfile.write(body)


def attestation():
    """(status, text) of the page about an attestation document with a fresh challenge."""
    challenge = base64.b64encode(os.urandom(32)).decode()
    request = urllib.request.Request(LOCAL_API, json.dumps({"challenge": challenge}).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            document = response.read()
    except OSError as error:
        return 502, f"no attestation document: {error}\n"
    return 200, f"attestation document: {len(document)} bytes\nsha384: {hashlib.sha384(document).hexdigest()}\n"


def main():
    server = ThreadingHTTPServer(ADDRESS, Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("listening on {}:{}".format(*server.server_address), flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
