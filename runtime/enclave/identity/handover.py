"""The TLS identities of a release, as the ingress workers get them: PID 1 carries keys and uses none."""

from collections.abc import Sequence

from runtime.protocol.bundle import DeliveredIdentity
from runtime.protocol.worker_link import Released, WorkerIdentity


def worker_identities(identities: Sequence[DeliveredIdentity], release: Released | None) -> list[WorkerIdentity]:
    """Where no key was delivered it is the one that was made inside, as `release` has it; an identity without either is left out."""
    own = None if release is None else release.tls_key
    keys = [identity.key.reveal() if identity.key is not None else own for identity in identities]
    return [
        WorkerIdentity(identity.names, identity.chain, key)
        for identity, key in zip(identities, keys, strict=True)
        if key is not None
    ]
