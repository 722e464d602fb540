"""One fault: how it is provoked, what the parent must see of it, and how it ends."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from tests.scenarios.faults.site import Site

Act: TypeAlias = Callable[[Site], Awaitable[None]]
Kind: TypeAlias = Literal["journal", "state", "parent"]
Ends: TypeAlias = Literal["failed", "stopped", "killed"]

APP = """
[[process]]
name = "app"
command = ["sh", "-c", "echo the token is $API_TOKEN; exec sleep 3600"]
user = "1000:1000"
secrets = ["API_TOKEN", "DATABASE_URL"]
"""
"""A process that does all it can to give its secrets away."""


async def nothing(_: Site) -> None:
    """Does nothing."""
    await trio.lowlevel.checkpoint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`kind`, `event` and `reason` are what the parent shows. `ends` is the last state of an enclave that the fault ends; None: it is
    ready, or ready again, and stops well when it is asked to.

    `audit` is the reason in the provisioner's audit log, where peers learn no more than a code. `tables`, `provisioner` and `channel` go
    into enclave.toml. `prepare` is done before the start, `provoke` after it, and `mend` when the fault was seen. Faults of one `scene`
    are provoked together in one machine, as they may come together; the others have one each.
    """

    name: str
    event: str = "boot.failed"
    reason: str
    kind: Kind = "journal"
    ends: Ends | None = "failed"
    audit: str | None = None
    scene: str = ""
    tables: str = APP
    provisioner: str = ""
    channel: str = "exporter"
    prepare: Act = nothing
    provoke: Act = nothing
    mend: Act = nothing

    @property
    def code(self) -> tuple[str, str, str]:
        """What an operator tells it by."""
        return self.event, self.reason, self.audit or ""


def both(*acts: Act) -> Act:
    """One after the other."""

    async def all_of_them(site: Site) -> None:
        for act in acts:
            await act(site)

    return all_of_them
