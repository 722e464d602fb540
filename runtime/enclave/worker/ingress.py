"""The role "ingress": clients' TLS ends here. One of several processes on one socket; it holds the TLS keys and no other secret."""

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from runtime.enclave.config import EnclaveConfig
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.traffic.event_limit import EventLimit
from runtime.enclave.traffic.ingress import Ingress, serve_ingress
from runtime.enclave.traffic.limits import http_policy, ingress_limits
from runtime.enclave.traffic.request_log import RequestLog
from runtime.enclave.worker.first import First
from runtime.net.tls import PrivateKey, TlsIdentity
from runtime.net.tls_rotation import ServerContexts
from runtime.protocol.worker_link import Configure, Finished, Requests, Started, WorkerIdentity


async def serve_clients(first: First, configure: Configure, config: EnclaveConfig, listener: trio.SocketListener) -> None:
    """Serves until told to drain; then finishes what is in flight."""
    assert config.ingress.mode != "off"
    assert config.ingress.upstream is not None
    contexts = None  # in mode passthrough clients' TLS does not end here
    if config.ingress.mode != "passthrough":
        contexts = ServerContexts([_identity(each) for each in configure.identities], min_version=config.tls.min_version)
        first.on_identities = lambda carried: contexts.replace([_identity(each) for each in carried])

    http = config.ingress.http
    requests = RequestLog(lambda lines: first.tell(Requests(lines)), sample=http.request_log_sample)

    ingress = Ingress(
        mode=config.ingress.mode,
        upstream=config.ingress.upstream,
        tls_context=None if contexts is None else contexts.current,
        attester=Nsm(first),
        config_digest=config.digest,
        ready=lambda: first.is_customer_ready,
        draining=first.drain_asked,
        log=EventLimit(lambda event, fields: first.note(f"traffic.{event}", fields)),
        requests=requests if http.request_log else None,
        closes_unready=config.ingress.not_ready == "close",
        tells_client=config.ingress.proxy_protocol,
        policy=http_policy(config.ingress),
        attestation_path=http.attestation_path,
        limits=ingress_limits(config.ingress, share=configure.share),
    )
    async with trio.open_nursery() as background:
        if contexts is not None:
            background.start_soon(contexts.rotate)
        background.start_soon(requests.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_ingress, listener, ingress)
            first.tell(Started())
        background.cancel_scope.cancel()
    requests.flush()
    first.tell(Finished())


def _identity(carried: WorkerIdentity) -> TlsIdentity:
    key = load_der_private_key(carried.key, None)
    assert isinstance(key, PrivateKey)
    return TlsIdentity(names=carried.names, chain=tuple(x509.load_der_x509_certificate(der) for der in carried.chain), key=key)
