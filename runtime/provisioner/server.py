"""The provisioner's server: PROV/1 over TLS 1.3 (protocol/README.md section 1). Errors leave as a code, a request id, and no more."""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.net.buckets import client_network, plain_address
from runtime.net.clock import unix_now
from runtime.net.endpoint import Tcp, bound, listen
from runtime.net.http import Request, Response, serve_http
from runtime.net.serve import serve
from runtime.net.tls import TlsStream, server_context
from runtime.protocol.binding import EXPORTER_SIZE, PROV_EXPORTER_LABEL, spki_digest
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.messages import CONTENT_TYPE, ProvError
from runtime.provisioner.config import ProvisionerConfig
from runtime.provisioner.keys import ProvisionerKeys
from runtime.provisioner.service import Caller, Failure, Service
from runtime.provisioner.store import Store

HANDSHAKE_SECONDS = 10.0
_STATUS = {
    "busy": 503,
    "unsupported_version": 400,
    "challenge_gone": 410,
    "refused": 403,
    "revoked": 403,
    "malformed": 400,
    "internal": 500,
}


async def run_provisioner(
    config: ProvisionerConfig,
    keys: ProvisionerKeys,
    store: Store,
    roots: Sequence[x509.Certificate],
    *,
    clock: Callable[[], float] = unix_now,
    log: Callable[[str], None],
    task_status: trio.TaskStatus[Tcp] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until it is cancelled; `task_status` gets the endpoint that it listens on. `log` gets one line for each failed connection."""
    service = Service(config, keys, store, roots, clock)
    context = server_context([keys.server], min_version="1.3", ask_client_certificate=True)
    listener = await listen(config.listen)
    endpoint = bound(listener)
    assert isinstance(endpoint, Tcp)

    held: Counter[str] = Counter()

    async def handle(stream: trio.SocketStream) -> None:
        address = plain_address(str(stream.socket.getpeername()[0]))
        client = client_network(address)
        if held[client] >= config.limits.connections_per_address:
            log(f"connection refused: {address} has {held[client]} already")
            return
        held[client] += 1
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                connection = await TlsStream.accept(stream, context)
            await serve_http(connection, partial(_answer, service, connection, address, log), max_body=MESSAGE_MAX)
        finally:
            held[client] -= 1
            if not held[client]:
                del held[client]

    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve,
                listener,
                handle,
                limit=config.limits.connections,
                on_error=lambda error: log(f"connection ended: {type(error).__name__}: {error}"),
            )
        )
        task_status.started(endpoint)


async def _answer(service: Service, connection: TlsStream, address: str, log: Callable[[str], None], request: Request) -> Response:
    methods = {
        "/prov/1/ticket": service.ticket,
        "/prov/1/hello": service.hello,
        "/prov/1/evidence": service.evidence,
        "/prov/1/confirm": service.confirm,
    }
    caller = Caller(
        address=address,
        request_id=secrets.token_hex(8),
        key_digest=_key_digest(connection.peer_certificate),
        exporter=lambda context: connection.exporter(PROV_EXPORTER_LABEL, context, EXPORTER_SIZE),
    )
    method = methods.get(request.path)
    try:
        if method is None or request.method != "POST" or request.header("content-type") != CONTENT_TYPE:
            raise Failure("malformed")
        body = await trio.to_thread.run_sync(method, request.body, caller)
    except Failure as failure:
        return _error(failure, caller)
    except Exception as error:  # noqa: BLE001 - the entry point of a request: nothing that one peer sends may end the server for all
        log(f"request {caller.request_id}: {type(error).__name__}: {error}")
        return _error(Failure("internal"), caller)
    if not body:
        return Response(204)
    return Response(200, (("content-type", CONTENT_TYPE), ("cache-control", "no-store")), body)


def _error(failure: Failure, caller: Caller) -> Response:
    message = ProvError(code=failure.code, request_id=caller.request_id, retry_after=failure.retry_after)
    headers = [("content-type", CONTENT_TYPE), ("cache-control", "no-store")]
    if failure.retry_after is not None:
        headers.append(("retry-after", str(failure.retry_after)))
    return Response(_STATUS[failure.code], tuple(headers), message.encode())


def _key_digest(certificate: x509.Certificate | None) -> str | None:
    if certificate is None:
        return None
    try:
        return spki_digest(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()
    except (ValueError, UnsupportedAlgorithm):
        return None  # a key that no record can name
