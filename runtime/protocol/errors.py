"""The errors of the wire, by whose fault they are.

`ProtocolError.reason` is a stable code that logs, journals and tests may rely on; `detail` is for people and never holds a secret.
"""


class ProtocolError(Exception):
    """Base of everything that `runtime.protocol` raises for a peer's fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail} [{reason}]")
        self.reason = reason
        self.detail = detail


class Malformed(ProtocolError):
    """The bytes are not what the format says: the one error of every decoder."""

    def __init__(self, detail: str, reason: str = "malformed") -> None:
        super().__init__(reason, detail)


class Refused(ProtocolError):
    """The message is well formed and must not be accepted, or the peer would not accept ours."""


class LocalProtocolError(Exception):
    """Our own code asked for something that the protocol does not allow now: a bug, never a peer's doing."""
