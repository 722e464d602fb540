"""The enclave's time: from the NSM, never from the parent.

A fresh attestation document carries the hypervisor's time in milliseconds. One reading is taken before the first certificate is judged;
from then on the kernel's monotonic clock counts, which the parent cannot move.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.enclave.identity.nsm import Nsm
from runtime.protocol.document import parse_document


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedClock:
    """Time as the NSM told it: `unix` seconds at `monotonic` seconds of the clock that `read` was given."""

    unix: float
    monotonic: float
    counter: Callable[[], float]

    def unix_now(self) -> float:
        """Seconds since 1970 UTC."""
        return self.unix + self.counter() - self.monotonic

    def now(self) -> datetime:
        """The same moment as an aware datetime."""
        return datetime.fromtimestamp(self.unix_now(), UTC)


async def read_clock(nsm: Nsm, counter: Callable[[], float]) -> TrustedClock:
    """A clock set by a fresh document. `counter` is monotonic, in seconds. Raises `NsmError`, or `Malformed` for a document that is none.

    The document is the device's own answer, so its signature is not judged here; the time is that of the answer's arrival, at most
    the duration of one call too early.
    """
    document = parse_document(await nsm.attest())
    return TrustedClock(unix=document.timestamp_ms / 1000, monotonic=counter(), counter=counter)
