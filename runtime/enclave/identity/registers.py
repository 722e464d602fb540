"""The three PCRs that the runtime itself uses, in the order of protocol/README.md section 1.3. Each is extended once and locked at once.

A register that was used before in this boot cannot be extended again (`nsm_read_only_index`): boot ends there, and that is the point.
"""

from collections.abc import Mapping

from runtime.enclave.identity.nsm import Nsm
from runtime.protocol.measurements import (
    APPLICATION_PCRS,
    CONFIG_PCR,
    KEY_PCR,
    LIVE_PCR,
    config_commitment,
    key_commitment,
    live_commitment,
)


async def measure_config(nsm: Nsm, config_digest: bytes, host_parameters: Mapping[str, str]) -> None:
    """PCR 16, before hello: the config as baked, and what the parent was allowed to say."""
    await _extend_and_lock(nsm, CONFIG_PCR, config_commitment(config_digest, host_parameters))


async def commit_key(nsm: Nsm, hpke_public_key: bytes) -> None:
    """PCR 17, before the evidence: the one sealing key of this boot."""
    await _extend_and_lock(nsm, KEY_PCR, key_commitment(hpke_public_key))


async def go_live(nsm: Nsm) -> None:
    """PCR 18, after the bundle opened and before any customer process; then every other register is locked as well."""
    await _extend_and_lock(nsm, LIVE_PCR, live_commitment())
    await nsm.lock_pcrs(APPLICATION_PCRS.stop)


async def _extend_and_lock(nsm: Nsm, index: int, data: bytes) -> None:
    await nsm.extend_pcr(index, data)
    await nsm.lock_pcr(index)
