"""Whether what a client says first may go on: TLS that asks for the name the connection was allowed for, or an exception of its rule.

Runs inside the enclave; pure. An encrypted hello is one whose name cannot be seen, so only the exception lets it through, and then
whatever name stands outside; without the exception the outer name does not help.
"""

from typing import Literal, TypeAlias

from runtime.enclave.traffic.egress_policy import TlsDemand
from runtime.protocol.client_hello import ClientHello

GateReason: TypeAlias = Literal["allowed", "sni_missing", "sni_mismatch", "sni_encrypted"]


def judge_hello(hello: ClientHello, demand: TlsDemand) -> GateReason:
    """`allowed`, or why the connection ends without a byte passed on. A hello that cannot be read never comes here."""
    if demand.name is None:
        return "allowed"
    if hello.is_encrypted:
        return "allowed" if "encrypted" in demand.exceptions else "sni_encrypted"
    if hello.server_name is None:
        return "allowed" if "missing" in demand.exceptions else "sni_missing"
    return "allowed" if hello.server_name == demand.name else "sni_mismatch"
