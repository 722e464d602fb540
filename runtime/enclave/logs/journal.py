"""What of the boot journal may go to the parent: events from a level on, with known secrets masked. Pure.

States, exits and failures are not held back: a boot that failed says so whatever the level is, because its event is an error.
"""

from runtime.enclave.logs.masking import Masks
from runtime.protocol.link_values import BYTES_MAX, LEVELS, TEXT_MAX, Level


class JournalGate:
    """Everything from "info" on passes, unmasked, until somebody knows better."""

    def __init__(self) -> None:
        self.level: Level = "info"
        self.masks = Masks()

    def admits(self, level: Level) -> bool:
        """Whether events of this level go out."""
        return LEVELS.index(level) >= LEVELS.index(self.level)

    def masked(self, value: int | str | bytes) -> int | str | bytes:
        """`value` without known secrets, and without an end that may be half of one where it was cut to the journal's limit."""
        if not self.masks or isinstance(value, int):
            return value
        if isinstance(value, bytes):
            return self._masked(value, BYTES_MAX)
        raw = value.encode(errors="surrogatepass")
        masked = self._masked(raw, TEXT_MAX)
        return value if masked == raw else masked.decode(errors="backslashreplace")

    def _masked(self, raw: bytes, limit: int) -> bytes:
        masked = self.masks.mask(raw)
        return masked if len(raw) < limit else masked[: self.masks.open_end(masked)]
