"""The roles "provision" and "renew": PROV/1 from hello to confirm, then it ends. They alone speak to the provisioner."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import runtime
from runtime.enclave.config import EnclaveConfig
from runtime.enclave.identity.certificates import accept_identities
from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.identity.provisioning import Provisioning, ProvisioningFailed
from runtime.enclave.link import TicketUnavailable
from runtime.enclave.traffic.egress import open_egress
from runtime.enclave.worker.first import First
from runtime.net.endpoint import Endpoint, connect
from runtime.net.tls import TlsIdentity
from runtime.protocol.errors import ProtocolError
from runtime.protocol.release import ReleaseHeader
from runtime.protocol.worker_link import Configure, Failed, Finished, Released

_DETAIL_MAX = 500
_RUNTIME = f"enclave-runtime/{runtime.__version__}"


async def provision(first: First, configure: Configure, config: EnclaveConfig) -> None:
    """Obtains the release, hands it to PID 1, and confirms it when told to."""
    egress = Endpoint.parse(configure.egress)

    async def next_ticket() -> bytes:
        ticket = await first.ticket()
        if ticket is None:
            raise TicketUnavailable("the parent has no ticket now")
        return ticket

    try:
        provisioning = Provisioning(
            config,
            boot_id=configure.boot_id,
            runtime=_RUNTIME,
            nsm=Nsm(first),
            connect=partial(open_egress, lambda: connect(egress)),
            next_ticket=next_ticket,
            note=lambda event, fields: first.note(f"provisioning.{event}", fields),
            lease=configure.lease,
        )
        provisioned = await provisioning.run()
        bundle = provisioned.released.bundle
        now = provisioned.clock.now()
        identities = accept_identities(bundle.identities, provisioned.tls_key, now=now)
    except (ProvisioningFailed, NsmError, ProtocolError) as error:
        first.tell(Failed(error.reason, str(error)[:_DETAIL_MAX]))
        return
    key = provisioned.tls_key
    first.tell(
        Released(
            bundle.encode(),
            provisioned.released.header.lease_id,
            None if key is None else key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            _renew_after(provisioned.released.header, identities, now),
        )
    )
    await first.confirm_asked.wait()
    await provisioned.confirm(first.confirm_outcome.outcome)
    first.tell(Finished())


def _renew_after(header: ReleaseHeader, identities: Sequence[TlsIdentity], now: datetime) -> int:
    """Seconds: as the provisioner wants it, and at two thirds of what is left of the first certificate to end, if that is sooner."""
    left = [(identity.chain[0].not_valid_after_utc - now).total_seconds() for identity in identities]
    return int(min([header.renew_after_seconds, *(2 * seconds / 3 for seconds in left)]))
