"""What the journal says of the ends of a process's runs: numbers and a digest, never what it wrote."""

from collections.abc import Sequence

from runtime.enclave.process.customer import Ended
from runtime.protocol.link_values import JournalFields

LAST_EXITS = 3


def exited_fields(process: str, ended: Ended, *, restarts: int) -> JournalFields:
    """For `process.exited`. `restarts`: how often it was started again before this run."""
    return {"process": process, **_fields(ended), "restarts": restarts}


def gave_up_fields(process: str, reason: str, exits: Sequence[Ended]) -> JournalFields:
    """For `process.gave_up`: the last `LAST_EXITS` of `exits`, the last one first, their fields numbered from 1."""
    fields: dict[str, int | str | bytes] = {"process": process, "reason": reason}
    for number, ended in enumerate(reversed(exits[-LAST_EXITS:]), start=1):
        fields |= {f"{name}_{number}": value for name, value in _fields(ended).items()}
    return fields


def _fields(ended: Ended) -> JournalFields:
    """`code` or `signal`, whichever it was; the others where there is something to say."""
    fields: dict[str, int | str | bytes] = {}
    if ended.code is not None:
        fields["code"] = ended.code
    if ended.signal is not None:
        fields["signal"] = ended.signal
    fields |= {"uptime_ms": int(ended.uptime * 1000), "peak_kib": ended.peak_kib}
    if ended.last_line:
        fields["last_line"] = ended.last_line
    if ended.oom_kills:
        fields["oom_kills"] = ended.oom_kills
    return fields
