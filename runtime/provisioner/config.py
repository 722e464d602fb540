"""provisioner.toml (config/provisioner.toml is the commented example)."""

from dataclasses import dataclass, field
from typing import Annotated

from runtime.net.endpoint import Endpoint, Tcp
from runtime.settings import Duration, NonEmpty, Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one enclave and one address may ask for, and how much is held open."""

    requests_per_enclave: Annotated[float, Range(0.01, 10_000)] = 2.0
    requests_per_address: Annotated[float, Range(0.01, 10_000)] = 10.0
    burst: Annotated[int, Range(1, 10_000)] = 20
    connections: Annotated[int, Range(1, 100_000)] = 512
    connections_per_address: Annotated[int, Range(1, 100_000)] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """What the audit log keeps: every row for a time, and of those that strangers cause so many (runtime/provisioner/retention.py)."""

    keep: Annotated[Duration, Range(86400, 3650 * 86400)] = 400 * 86400.0
    entries: Annotated[int, Range(1000, 100_000_000)] = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionerConfig:
    """`directory` holds keys and database; a relative one counts from the config file. `roots` are "aws" or PEM files."""

    version: Annotated[int, Range(1, 1)]
    id: Annotated[str, NonEmpty()]
    directory: Annotated[str, NonEmpty()]
    roots: Annotated[tuple[str, ...], NonEmpty()]
    listen: Endpoint = field(default_factory=lambda: Tcp("0.0.0.0", 7443))  # noqa: S104 - a server that enclaves reach from elsewhere
    server_names: Annotated[tuple[str, ...], NonEmpty()] = ("localhost",)
    ticket_lifetime: Annotated[Duration, Range(10, 86400)] = 600.0
    challenge_lifetime: Annotated[Duration, Range(1, 60)] = 60.0
    certificate_lifetime: Annotated[Duration, Range(3600, 397 * 86400)] = 30 * 86400.0
    limits: Limits = field(default_factory=Limits)
    audit: AuditConfig = field(default_factory=AuditConfig)
