"""Prepares the folder of a simulation: keys, certificates, configuration files, the record at the provisioner, reference values.

Everything is made the way its owner would make it: the provisioner's keys by the provisioner's code, the image's measurements from the
bytes that are "baked", the record from the reference values.
"""

import json
import os
import secrets
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

import runtime
from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.enclave.platform import DEFAULT_PATH
from runtime.net.endpoint import Endpoint
from runtime.protocol.binding import spki_digest
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.measurements import image_registers
from runtime.provisioner.keys import create_keys
from runtime.provisioner.records import EnclaveRecord
from runtime.provisioner.store import Store
from runtime.settings import SettingsError, decode, load
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import make_module_id
from runtime.simulator.pki import open_root
from runtime.toml_text import to_toml
from runtime.verifier.reference import Measurement, ReferenceValues, write_reference

BAKED = ("protocol", "net", "enclave")
LOCAL_NAME = "localhost"
_KERNEL = b"a simulated kernel"
_COMMAND_LINE = b"console=ttyS0 reboot=k panic=30"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What is baked and where it claims to run."""

    config: EnclaveConfig
    instance_id: str
    module_id: str
    registers: Mapping[int, bytes]


def prepare_provisioner(layout: Layout, *, now: datetime, port: int = 0) -> None:
    """The development root and the provisioner's keys, unless they are there from an earlier run, and its config."""
    layout.make()
    open_root(layout.nsm, now=now)
    layout.attestation_root.write_bytes((layout.nsm / "root.pem").read_bytes())
    if not layout.provisioner.exists():
        create_keys(layout.provisioner, server_names=(LOCAL_NAME,), now=now)
    layout.ca.write_bytes((layout.provisioner / "issuing-ca.pem").read_bytes())
    config = {
        "version": 1,
        "id": "simulated-provisioner",
        "directory": ".",
        "listen": f"tcp:{LOCAL_NAME}:{port}",
        "roots": [str(layout.attestation_root)],
    }
    (layout.provisioner / "provisioner.toml").write_text(to_toml(config))


def localized(layout: Layout, source: Path, *, provisioner: str, names: tuple[str, ...]) -> tuple[bytes, EnclaveConfig]:
    """The config with this provisioner in place of its own and these names: its bytes, and what they mean.

    Raises OSError for a file that cannot be read, `SettingsError` for a config that is wrong.
    """
    own = decode(source.read_bytes(), source.name)
    provisioning = {
        "url": provisioner,
        "ca": (layout.provisioner / "server-ca.pem").read_text(),
        "keys": [(layout.provisioner / "root.pub").read_text().strip()],
    }
    try:
        table = tomllib.loads(own)
        table["provisioner"] = table.get("provisioner", {}) | provisioning
        tls = table.get("tls", {})
        if table.get("ingress", {}).get("mode") != "passthrough":  # where the certificate is the process's own
            table["tls"] = tls | {"names": list(dict.fromkeys([*(names or tls.get("names", [])), LOCAL_NAME]))}
    except (ValueError, RecursionError, TypeError, AttributeError):
        load(EnclaveConfig, own, source.name)  # no TOML, or no tables where tables must be: whose error says where
        raise
    baked = to_toml(table).encode()
    try:
        config = load_enclave_config(baked, source.name)
    except SettingsError as error:
        raise _in_lines_of(own, source.name, error) from None
    return baked, config


def bake(layout: Layout, source: Path, *, provisioner: str, names: tuple[str, ...]) -> Simulated:
    """ "Builds" the image: the config as `localized`, the image config, and what they measure. Raises what that raises."""
    baked, config = localized(layout, source, provisioner=provisioner, names=names)
    interpreter = Path(sys.base_prefix) / "bin"
    image = json.dumps({"Env": [f"PATH={DEFAULT_PATH}:{interpreter}"], "WorkingDir": str(source.resolve().parent)}).encode()
    (layout.enclave / "enclave.toml").write_bytes(baked)
    (layout.enclave / "image.json").write_bytes(image)
    instance_id = f"i-{secrets.token_hex(9)[:17]}"
    return Simulated(
        config=config,
        instance_id=instance_id,
        module_id=make_module_id(instance_id),
        registers=image_registers(_KERNEL, _COMMAND_LINE, [_runtime_release(), baked + image]),
    )


def register(layout: Layout, simulated: Simulated) -> ReferenceValues:
    """The record at the provisioner, with a fresh value for each secret that a process is promised; the reference values for everybody."""
    config = simulated.config
    measurement = Measurement(
        name=f"{config.enclave.id} (simulated)",
        pcrs=simulated.registers,
        epoch=config.enclave.epoch,
        config_digest=config.digest,
    )
    reference = ReferenceValues(measurements=(measurement,))
    layout.reference.write_text(write_reference(reference))
    names = {name for process in config.process for name in process.secrets}
    record = EnclaveRecord(
        enclave_id=config.enclave.id,
        reference=reference,
        parents=(_parent_key(layout),),
        names=config.tls.names,
        lease_quota=1_000_000,  # enclaves of earlier runs have not given their leases back
        secrets={name: Secret(delivery="env", value=SecretValue(secrets.token_urlsafe(24).encode())) for name in sorted(names)},
    )
    store = Store(layout.provisioner / "store.db")
    try:
        store.put_record(record)
    finally:
        store.close()
    return reference


def prepare_parent(layout: Layout, simulated: Simulated, *, provisioner: str, listen: Endpoint, now: datetime) -> Path:
    """The parent's client certificate and config; gives the config's path."""
    _make_parent_certificate(layout, now)
    layout.events.unlink(missing_ok=True)
    ingress = simulated.config.ingress
    config = {
        "version": 1,
        "instance_id": simulated.instance_id,
        "enclave": {"id": simulated.config.enclave.id, "ingress": str(layout.enclave_port(ingress.vsock_port))},
        "listen": {
            "public": str(listen),
            "control": str(layout.parent_port(9001)),
            "egress": str(layout.parent_port(9002)),
            "status": f"unix:{layout.sockets / 'status.sock'}",
        },
        "provisioner": {
            "url": provisioner,
            "ca": str(layout.provisioner / "server-ca.pem"),
            "certificate": "parent.pem",
            "key": "parent.key",
        },
        "egress": {"allow_loopback": True},
        "output": {"events": "events.jsonl"},
    }
    path = layout.parent / "parent.toml"
    path.write_text(to_toml(config))
    return path


def _in_lines_of(own: str, source: str, error: SettingsError) -> SettingsError:
    """The problems of the baked config, at the lines of the file that a person wrote."""
    try:
        load(EnclaveConfig, own, source)
    except SettingsError as found:
        lines = {(problem.key, problem.message): problem.line for problem in found.problems}
        return SettingsError(*(replace(problem, line=lines.get((problem.key, problem.message), 1)) for problem in error.problems))
    return error


def _runtime_release() -> bytes:
    """The first ramdisk of a simulated image: every source file that a real one bakes, by name."""
    package = Path(runtime.__file__).parent
    files = [package / "settings.py", *(file for part in BAKED for file in (package / part).rglob("*.py"))]
    return b"".join(f"{file.relative_to(package)}\n".encode() + file.read_bytes() for file in sorted(files))


def _make_parent_certificate(layout: Layout, now: datetime) -> None:
    if (layout.parent / "parent.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated parent")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, SHA256())
    )
    with os.fdopen(os.open(layout.parent / "parent.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (layout.parent / "parent.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


def _parent_key(layout: Layout) -> str:
    certificate = x509.load_pem_x509_certificate((layout.parent / "parent.pem").read_bytes())
    return spki_digest(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hex()
