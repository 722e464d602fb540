"""The enclave's time: from the NSM, never from the parent.

A fresh attestation document carries the hypervisor's time in milliseconds. It is read before the first certificate is judged; between
two readings the kernel's monotonic clock counts, which the parent cannot move.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.enclave.identity.nsm import Nsm, NsmError
from runtime.enclave.identity.time_filter import Sample, estimate
from runtime.protocol.document import parse_document
from runtime.protocol.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedClock:
    """Time as the NSM told it: `unix` seconds at `monotonic` seconds of the clock that `read_clock` was given, at most `error` wrong."""

    unix: float
    monotonic: float
    error: float
    counter: Callable[[], float]

    def unix_now(self) -> float:
        """Seconds since 1970 UTC."""
        return self.unix + self.counter() - self.monotonic

    def now(self) -> datetime:
        """The same moment as an aware datetime."""
        return datetime.fromtimestamp(self.unix_now(), UTC)


async def read_clock(nsm: Nsm, counter: Callable[[], float], *, samples: int = 1) -> TrustedClock:
    """A clock set by the best of so many fresh documents. `counter` is monotonic, in seconds.

    The documents are the device's own answers, so their signatures are not judged here. Raises `NsmError` with the first call that
    fails, "nsm_document" for a document that is none.
    """
    told = estimate([await _sample(nsm, counter) for _ in range(samples)])
    return TrustedClock(unix=told.unix, monotonic=told.monotonic, error=told.error, counter=counter)


async def _sample(nsm: Nsm, counter: Callable[[], float]) -> Sample:
    sent = counter()
    document = await nsm.attest()
    received = counter()
    try:
        unix = parse_document(document).timestamp_ms / 1000
    except ProtocolError as error:
        raise NsmError("nsm_document", str(error)) from error
    return Sample(sent=sent, received=received, unix=unix)
