"""What the provisioner knows of an enclave before it has ever spoken: the record that an operator registered."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from runtime.protocol.bundle import Secret
from runtime.protocol.sealing import Suite
from runtime.verifier.reference import ReferenceValues, parse_reference, write_reference

Status: TypeAlias = Literal["active", "revoked"]
NO_ROLE = "none"
"""In `roles`: an instance without an IAM role, whose PCR 3 is zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveRecord:
    """One enclave_id. Empty lists allow nothing.

    `parents` are SHA-384 digests (hex) of the public keys that may fetch tickets; `roles` the IAM role ARNs, or `NO_ROLE`;
    `instances` the EC2 instances that it may run on, None for any; `addresses` the instance's known source addresses, compared always
    and enforced when `strict_source_ip`.
    """

    enclave_id: str
    reference: ReferenceValues
    status: Status = "active"
    parents: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = (NO_ROLE,)
    epoch_floor: int = 0
    suites: tuple[int, ...] = tuple(Suite)
    channel: Literal["exporter", "none"] = "exporter"
    host_parameters: dict[str, str] = field(default_factory=dict)
    instances: tuple[str, ...] | None = None
    addresses: tuple[str, ...] = ()
    strict_source_ip: bool = False
    lease_seconds: int = 86400
    renew_after_seconds: int = 43200
    lease_quota: int = 16
    secrets: dict[str, Secret] = field(default_factory=dict)

    def to_json(self) -> str:
        """The record without its secrets."""
        fields = asdict(self) | {"reference": write_reference(self.reference)}
        del fields["secrets"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, secrets: dict[str, Secret]) -> "EnclaveRecord":
        """The record that `to_json` wrote, with its secrets."""
        fields: dict[str, Any] = json.loads(text)
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **lists, "reference": parse_reference(fields["reference"]), "secrets": secrets})
