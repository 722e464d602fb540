"""What a worker may ask of the security module, and tell the journal, by its role. Whoever takes a worker over gets no more than this.

No role but "provision" can make a document that a provisioner would take for evidence of a boot, and that one is gone when PCR 18 is
locked. "renew" can make what is evidence of a renewal to who has the key of the lease: its worker alone, which lives for a minute.
"""

from typing import assert_never

from runtime.protocol.binding import AppBinding, ProvBinding, PublicBinding, decode_binding
from runtime.protocol.errors import Malformed
from runtime.protocol.measurements import KEY_PCR
from runtime.protocol.nsm import Attest, ExtendPcr, LockPcr, Request
from runtime.protocol.worker_link import (
    Ask,
    Counted,
    Event,
    Failed,
    Finished,
    FromWorker,
    Pong,
    Probed,
    Released,
    Requests,
    Role,
    Started,
    TicketWanted,
)

_SUBJECTS: dict[Role, str] = {"provision": "provisioning.", "renew": "provisioning.", "ingress": "traffic.", "egress": "egress."}
_PROVISIONING = frozenset({"provision", "renew"})


def may_say(role: Role, message: FromWorker, *, is_draining: bool) -> bool:
    """Whether a message is one that the role has a use for; a journal event must be about what the role does."""
    match message:
        case Ask() | Pong():
            return True
        case Event(event=event):
            return role in _SUBJECTS and event.startswith(_SUBJECTS[role])
        case Requests():
            return role in ("ingress", "egress")
        case Counted(numbers=numbers):
            return role == "egress" and all(name.startswith("egress_") for name in numbers)
        case TicketWanted() | Released() | Failed():
            return role in _PROVISIONING
        case Started():
            return role not in _PROVISIONING
        case Probed():
            return role == "api"
        case Finished():
            return role in _PROVISIONING or is_draining
        case _:
            assert_never(message)


def may_ask(role: Role, request: Request, *, config_digest: bytes) -> bool:
    """Whether `request` is within the role."""
    match request:
        case Attest(user_data=None, nonce=None, public_key=None):
            return role in _PROVISIONING  # for its time
        case Attest(user_data=bytes(user_data)):
            return _may_bind(role, user_data, config_digest)
        case ExtendPcr(index=index) | LockPcr(index=index):
            return role == "provision" and index == KEY_PCR
        case _:
            return False


def _may_bind(role: Role, user_data: bytes, config_digest: bytes) -> bool:
    try:
        binding = decode_binding(user_data)
    except Malformed:
        return False
    match role, binding:
        case ("provision" | "renew", ProvBinding()) | ("api", AppBinding()):
            return True
        case "ingress", PublicBinding():
            return binding.config_digest == config_digest
        case _:
            return False
