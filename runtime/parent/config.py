"""The schema of parent.toml (config/parent.toml is the commented example). Nothing here protects the enclave; it protects the parent."""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from runtime.net.endpoint import ANY_CID, Endpoint, Vsock
from runtime.parent.resolver_address import ResolverAddress
from runtime.settings import Duration, KeyProblem, Parse, Pattern, Range, decode, load

Network: TypeAlias = IPv4Network | IPv6Network

CONTROL = Vsock(ANY_CID, 9001)
EGRESS = Vsock(ANY_CID, 9002)


@dataclass(frozen=True, slots=True)
class ProvisionerUrl:
    """`https://HOST[:PORT]`, without a path."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """What a Host header holds."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "ProvisionerUrl":
        """Raises ValueError that says what is wrong."""
        parts = urlsplit(text)
        if (
            parts.scheme != "https"
            or not parts.hostname
            or parts.path not in {"", "/"}
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ValueError(f"must be https://HOST[:PORT]: {text!r:.80}")
        return cls(parts.hostname, parts.port or 443)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclave:
    """The enclave that this parent serves: its id at the provisioner, and where its ingress workers listen."""

    id: Annotated[str, Pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "an enclave id")]
    ingress: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the parent listens: for clients, for the enclave's two links, for `enclave status`, for load balancers' health checks."""

    public: Endpoint
    control: Endpoint = CONTROL
    egress: Endpoint = EGRESS
    status: Endpoint | None = None
    health: Endpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """Where tickets come from, and with which client certificate. Paths are relative to the file that names them."""

    url: ProvisionerUrl
    ca: Annotated[Path, Parse(Path)]
    certificate: Annotated[Path, Parse(Path)]
    key: Annotated[Path, Parse(Path)]
    deadline: Annotated[Duration, Range(0.1, 60)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """What the enclave may reach besides the public internet: hygiene of the parent's network, never the enclave's protection.

    `deny` is stronger than all else; `allow_named` is about private addresses that the enclave asks for as addresses. `resolvers` are
    asked in turn for names, the system's where there are none.
    """

    allow: tuple[Annotated[Network, Parse(ip_network)], ...] = ()
    deny: tuple[Annotated[Network, Parse(ip_network)], ...] = ()
    allow_named: bool = False
    allow_private: bool = False
    allow_loopback: bool = False
    resolvers: tuple[Annotated[ResolverAddress, Parse(ResolverAddress.parse)], ...] = ()

    def __post_init__(self) -> None:
        if len(self.resolvers) > 8:
            raise KeyProblem("must be at most 8", "resolvers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps on what clients and the enclave can take of the parent."""

    ingress_connections: Annotated[int, Range(1, 100_000)] = 4096
    ingress_connections_per_address: Annotated[int, Range(1, 100_000)] = 1024
    egress_connections: Annotated[int, Range(1, 100_000)] = 1024
    connect: Annotated[Duration, Range(0.1, 120)] = 10.0
    linger: Annotated[Duration, Range(1, 3600)] = 60.0
    idle: Annotated[Duration, Range(1, 86400)] = 900.0
    stop_grace: Annotated[Duration, Range(0, 3600)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How the console shows what happens on standard error, and the file (one JSON object a line, appended) it also goes to."""

    format: Literal["text", "json"] = "text"
    events: Annotated[Path, Parse(Path)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentConfig:
    """parent.toml."""

    version: Literal[1]
    instance_id: Annotated[str, Pattern(r"[A-Za-z0-9-]{1,64}", "an instance id such as i-0123456789abcdef0")]
    enclave: Enclave
    listen: Listen
    provisioner: Provisioner | None = None
    host_parameters: dict[str, Annotated[str, Pattern(r".{0,200}", "one line of at most 200 characters")]] = field(
        default_factory=dict
    )
    egress: Egress = Egress()
    limits: Limits = Limits()
    output: Output = Output()

    def __post_init__(self) -> None:
        if len(self.host_parameters) > 32 or any(not 1 <= len(name) <= 200 for name in self.host_parameters):
            raise KeyProblem("must have at most 32 entries, their names of 1 to 200 characters", "host_parameters")


def read_config(path: Path) -> ParentConfig:
    """The config in the file `path`. Raises `SettingsError`, or OSError when it cannot be read."""
    config = load(ParentConfig, decode(path.read_bytes(), str(path)), str(path))
    here = path.resolve().parent
    output, provisioner = config.output, config.provisioner
    if output.events is not None:
        output = replace(output, events=here / output.events)
    if provisioner is not None:
        provisioner = replace(
            provisioner, ca=here / provisioner.ca, certificate=here / provisioner.certificate, key=here / provisioner.key
        )
    return replace(config, output=output, provisioner=provisioner)
