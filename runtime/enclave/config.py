"""enclave.toml, schema version 1: what the customer decided, baked and measured byte for byte.

Runs inside the enclave and in the tools around it. The file is the customer's own; it decides what the enclave trusts, so it is taken
whole or refused. Whatever is left out has the safe default: nothing gets in, nothing gets out, no secret is handed on. Durations are
seconds and sizes are bytes once they are loaded.
"""

import dataclasses
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from runtime.enclave import config_values as values
from runtime.enclave.config_egress import NOTHING_OUT, Egress, EgressRule
from runtime.enclave.config_ingress import Ingress
from runtime.enclave.config_process import Process, Ready, check_order, start_order
from runtime.enclave.config_roots import PinnedRoots
from runtime.enclave.config_values import AbsolutePath, DnsName, Label, Url, Wait, unique
from runtime.net.endpoint import Endpoint, Tcp
from runtime.protocol.digest import digest
from runtime.protocol.log_batch import LogRecipient
from runtime.settings import (
    NOT_A_KEY,
    Duration,
    KeyProblem,
    NonEmpty,
    Parse,
    Pattern,
    Problem,
    Range,
    SettingsError,
    Size,
    decode,
    load,
    problem_at,
)

__all__ = ["EgressRule", "Process", "Ready", "start_order"]
"""What is of this schema and stands in config_egress.py and config_process.py; the rest is below."""

SIZE_MAX = 64 * 1024
"""Bytes of an enclave.toml."""

LOCAL_API = Tcp("127.0.0.1", 9999)

ANYTHING = object()
NOT_YET: tuple[tuple[str, str, object], ...] = (
    # (table, key, value), or ANYTHING for every value but the default: a line goes when the feature comes.
    ("tls", "source", "acme"),
    ("tls", "source", "self-signed"),
    ("tls", "client_ca", ANYTHING),
)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`[enclave]`: the name that the provisioner knows, and the number that increases with every release."""

    id: Label
    epoch: Annotated[int, Range(0, 2**63 - 1)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Acme:
    """`[tls.acme]`: the authority that issues certificates when `tls.source` is "acme"."""

    directory: Annotated[str, Pattern(r"https://[!-~]+", "an https URL")] = "https://acme-v02.api.letsencrypt.org/directory"
    contact: tuple[str, ...] = ()
    profile: str = ""
    eab: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """`[tls]`: where the public certificate comes from, and for which names."""

    source: Literal["provisioner", "acme", "self-signed"] = "provisioner"
    names: tuple[DnsName, ...] = ()
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: str = ""
    acme: Acme | None = None

    def __post_init__(self) -> None:
        unique(self.names, "names")
        if (self.acme is not None) and self.source != "acme":
            raise KeyProblem('has no meaning unless source is "acme"', "acme")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """`[provisioner]`: who may release secrets to this enclave. `ca` are the only roots that its TLS client trusts, `keys` the
    Ed25519 keys (32 bytes each) that sign release keys; after so many `attempts` the boot has failed."""

    url: Annotated[Url, Parse(values.https_url)]
    ca: PinnedRoots
    keys: Annotated[tuple[Annotated[bytes, Parse(values.root_key, show=values.show_root_key)], ...], NonEmpty()]
    channel: Literal["exporter", "none"] = "exporter"
    attempts: Annotated[int, Range(1, 1000)] = 8
    renew: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """`[attestation]`: the local API that gives customer processes attestation documents."""

    listen: Endpoint = LOCAL_API
    socket: AbsolutePath | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.listen, Tcp) or not _is_loopback(self.listen.host):
            raise KeyProblem("must be tcp: on a loopback address, such as tcp:127.0.0.1:9999", "listen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """`[log]`: the level of the runtime's own events; of the processes' output the longest line, what waits in memory while the parent
    is away, how much one process may write in the long run and at once, and the key without which the parent cannot read it."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_line_size: Annotated[Size, Range(256, 32 * 1024)] = 8 * 1024
    buffer_size: Annotated[Size, Range(64 * 1024, 1 << 30)] = 4 << 20
    rate: Annotated[int, Range(1, 1_000_000)] = 5000
    burst: Annotated[int, Range(1, 10_000_000)] = 20_000
    byte_rate: Annotated[Size, Range(1024, 1 << 30)] = 4 << 20
    byte_burst: Annotated[Size, Range(64 * 1024, 1 << 32)] = 16 << 20
    encrypt_to: LogRecipient | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """`[metrics]`: whether the parent may ask for numbers."""

    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`[health]`: how long a process may take to become ready before the enclave has failed."""

    start_timeout: Wait = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`[limits]`: of each customer process; how many restarts in `restart_window` are too many; how good the clock must be,
    and at what use of memory, in percent, to warn and to let no more requests in."""

    open_files: Annotated[int, Range(16, 1 << 20)] = 65536
    processes: Annotated[int, Range(1, 1 << 22)] = 4096
    restarts: Annotated[int, Range(0, 1000)] = 5
    restart_window: Wait = 600.0
    clock_age: Annotated[Duration, Range(1, 86400)] = 600.0
    clock_offset: Annotated[Duration, Range(0.01, 3600)] = 1.0
    memory_warn: Annotated[int, Range(1, 100)] = 85
    memory_shed: Annotated[int, Range(1, 100)] = 93

    def __post_init__(self) -> None:
        if self.memory_warn > self.memory_shed:
            raise KeyProblem("must not be over memory_shed", "memory_warn")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveConfig:
    """A whole enclave.toml. `digest` is SHA-384 of its bytes as they were given: `config_digest` of the protocols."""

    version: Literal[1]
    enclave: Identity
    process: Annotated[tuple[Process, ...], NonEmpty()]
    ingress: Ingress = field(default_factory=Ingress)
    tls: Tls = Tls()
    provisioner: Provisioner | None = None
    egress: Egress = NOTHING_OUT
    attestation: Attestation = Attestation()
    log: Log = Log()
    metrics: Metrics = Metrics()
    health: Health = Health()
    limits: Limits = Limits()
    digest: bytes = field(default=b"", metadata=NOT_A_KEY)

    def __post_init__(self) -> None:
        _refuse_not_yet(self)
        check_order(self.process)
        if self.ingress.mode in ("http", "tcp") and not self.tls.names:
            raise KeyProblem("is missing: the certificate for clients needs a name", "tls", "names")
        if self.tls.source == "provisioner" and self.provisioner is None:
            raise KeyProblem('is missing: it is what tls.source = "provisioner" asks', "provisioner")


def load_enclave_config(raw: bytes, source: str, *, reads_roots: bool = True) -> EnclaveConfig:
    """The configuration in the bytes of `source`, at most `SIZE_MAX`. Raises `SettingsError` with every problem that was found.

    Without `reads_roots` the pinned roots may still turn out to be no certificates when they are used.
    """
    if len(raw) > SIZE_MAX:
        raise SettingsError(Problem(source=source, line=1, key="", message=f"has {len(raw)} bytes; {SIZE_MAX} are allowed"))
    text = decode(raw, source)
    config = dataclasses.replace(load(EnclaveConfig, text, source), digest=digest(raw))
    if reads_roots and config.provisioner is not None:
        try:
            config.provisioner.ca.read()
        except ValueError as error:
            raise problem_at(text, source, ("provisioner", "ca"), str(error)) from None
    return config


def _default(section: Any, key: str) -> object:
    return next(field.default for field in dataclasses.fields(section) if field.name == key)


def _refuse_not_yet(config: EnclaveConfig) -> None:
    for table, key, refused in NOT_YET:
        section: Any = config
        for name in table.split("."):
            section = getattr(section, name)
        value = getattr(section, key)
        if value == refused or (refused is ANYTHING and value != _default(section, key)):
            what = "" if refused is ANYTHING else f'"{refused}" '
            raise KeyProblem(f"{what}is not available in this version", *table.split("."), key)
