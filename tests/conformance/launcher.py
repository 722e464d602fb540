"""Ingress workers alone, as a program: `python -m tests.conformance.launcher SPEC`, JSON as in `Spec`.

What `enclave simulate` cannot have: a leaf of any kind, and workers within reach. Fork server and worker processes are the real ones;
PID 1's part is played here. It prints one line of JSON when it serves, and ends when its standard input is closed.
"""

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.enclave.config import load_enclave_config
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.link import TicketUnavailable
from runtime.enclave.process.fork_server import ForkServer
from runtime.enclave.process.reaper import Reaper
from runtime.enclave.process.subreaper import become_subreaper
from runtime.enclave.process.workers import Services, Worker
from runtime.net.endpoint import Unix, listen
from runtime.protocol.link_values import JournalFields, Level
from runtime.protocol.worker_link import Configure, WorkerIdentity
from tests.enclave.test_config import PROVISIONER
from tests.enclave.worker.bench import InMemoryDevice
from tests.support.certificates import CA, make_ca

NAME = "localhost"
Kind: TypeAlias = Literal["rsa", "ecdsa"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to start: where it listens, the customer's endpoint, the leaf's key, the ingress's mode, how many workers."""

    listen: str
    upstream: str
    key: Kind = "ecdsa"
    mode: Literal["http", "tcp"] = "http"
    workers: int = 1

    def encode(self) -> str:
        """As the program's argument."""
        return json.dumps(asdict(self))


def make_identity(kind: Kind, ca: CA) -> WorkerIdentity:
    """A leaf for `NAME` as a public authority would issue it. An RSA one signs itself: clients without ECDSA must believe it too."""
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    crl = x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.invalid/ca.crl")], None, None, None)
    leaf = (
        x509.CertificateBuilder(
            subject if kind == "rsa" else ca.certificate.subject, subject, key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .add_extension(x509.CRLDistributionPoints([crl]), critical=False)
        .sign(key if kind == "rsa" else ca.key, SHA256())
    )
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return WorkerIdentity((NAME,), (leaf.public_bytes(Encoding.DER),), der)


def config_of(spec: Spec) -> bytes:
    """An enclave.toml for this ingress: every limit as it is by default, but for the size of a body."""
    return f"""
version = 1
[enclave]
id = "conformance"
[[process]]
name = "app"
command = ["true"]
[ingress]
mode = "{spec.mode}"
upstream = "{spec.upstream}"
[ingress.limits]
max_body_size = "1TiB"
body_timeout = "1d"
exchange_timeout = "1d"
max_connections_per_address = 4096
[tls]
names = ["{NAME}"]
{PROVISIONER}
""".encode()


async def launch(spec: Spec) -> None:
    """Serves until standard input is closed."""
    raw = config_of(spec)
    config = load_enclave_config(raw, "enclave.toml")
    ca = make_ca("conformance", datetime.now(UTC))
    identity = make_identity(spec.key, ca)
    reaper = Reaper()
    become_subreaper()
    fork_server = ForkServer(reaper)
    services = Services(
        nsm=Nsm(InMemoryDevice(), deadline=5.0),
        config_digest=config.digest,
        ticket=_no_ticket,
        note=_note,
        reaper=reaper,
        fork_server=fork_server,
    )

    def configure() -> Configure:
        return Configure("ingress", raw, bytes(16), "unix:/none", (identity,), True, spec.workers)

    async with await listen(Unix.parse(spec.listen)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(reaper.run)
        nursery.start_soon(fork_server.run)
        for _ in range(spec.workers):
            await nursery.start(Worker("ingress", services, configure, [listener]).run)
        sys.stdout.write(json.dumps({"ca": ca.certificate.public_bytes(Encoding.PEM).decode()}) + "\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def _no_ticket() -> bytes:
    raise TicketUnavailable("there is no provisioner here")


def _note(event: str, fields: JournalFields, level: Level) -> None:
    if level != "info":
        sys.stderr.write(f"{level} {event} {dict(fields)}\n")


if __name__ == "__main__":
    trio.run(launch, Spec(**json.loads(sys.argv[1])))
