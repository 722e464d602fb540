"""A small world for scenarios: a real provisioner, the development root, and any number of parents and enclaves, all in one process.

Time is the test's own. Every clock of the world (the NSM's, the provisioner's, trio's) is one mock clock, and it moves only when nobody
has anything to do: no task, no worker thread.
"""

import secrets
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from runtime.enclave.config import EnclaveConfig, load_enclave_config
from runtime.net.endpoint import Tcp, connect
from runtime.net.tls import TlsIdentity
from runtime.parent.config import Provisioner as ProvisionerOfParent
from runtime.parent.config import ProvisionerUrl
from runtime.parent.tickets import ProvisionerTickets
from runtime.protocol.binding import spki_digest
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.measurements import image_registers
from runtime.protocol.messages import TicketRequest
from runtime.provisioner import audit
from runtime.provisioner.config import ProvisionerConfig
from runtime.provisioner.keys import ProvisionerKeys, create_keys, load_keys
from runtime.provisioner.records import EnclaveRecord
from runtime.provisioner.server import run_provisioner
from runtime.provisioner.store import Store
from runtime.simulator.hostile_parent import HostileParent, Word
from runtime.simulator.nsm import SimulatedNsm, make_module_id
from runtime.simulator.pki import Authority, make_root
from runtime.simulator.stolen_key import ManInTheMiddle
from runtime.verifier.reference import Measurement, ReferenceValues
from tests.support.certificates import make_ca

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
SERVER_NAME = "provisioner.test"
INSTANCE = "i-0123456789abcdef0"
OTHER_INSTANCE = "i-0fedcba9876543210"
PROCESS = """
[[process]]
name = "app"
command = ["/bin/true"]
secrets = ["API_TOKEN", "DATABASE_URL"]
"""
"""What an image holds besides its name and its provisioner."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image and what it measures."""

    config: EnclaveConfig
    raw: bytes
    registers: dict[int, bytes]

    @property
    def measurement(self) -> Measurement:
        enclave = self.config.enclave
        return Measurement(name=enclave.id, pcrs=self.registers, epoch=enclave.epoch, config_digest=self.config.digest)


def measure(raw: bytes) -> Image:
    """The image of a config."""
    registers = image_registers(b"kernel", b"command line", [b"runtime", raw])
    return Image(config=load_enclave_config(raw, "enclave.toml"), raw=raw, registers=registers)


@dataclass(frozen=True, kw_only=True)
class World:
    """What a scenario plays in. `secrets` are those of the enclave "payments", by name."""

    nursery: trio.Nursery
    folder: Path
    now: Callable[[], datetime]
    keys: ProvisionerKeys
    store: Store
    provisioner: Tcp
    root: Authority
    parent_identity: TlsIdentity
    secrets: dict[str, Secret] = field(repr=False)

    def image(
        self, enclave_id: str = "payments", *, channel: str = "exporter", tables: str = PROCESS, provisioner: str = ""
    ) -> Image:
        """An image of an enclave with a name, that trusts this world's provisioner; `provisioner` is more of that table."""
        keys = self.folder / "keys"
        text = f"""
version = 1
enclave = {{ id = "{enclave_id}", epoch = 7 }}
tls = {{ names = ["app.test"] }}
{tables}
[provisioner]
url = "https://{SERVER_NAME}:7443"
ca = '''{(keys / "server-ca.pem").read_text()}'''
keys = ["{(keys / "root.pub").read_text().strip()}"]
channel = "{channel}"
{provisioner}
"""
        return measure(text.encode())

    def register(self, image: Image, **changes: object) -> EnclaveRecord:
        """Writes the record that an operator would write for an image; `changes` are fields of it."""
        assert image.config.provisioner is not None
        fields: dict[str, object] = {
            "enclave_id": image.config.enclave.id,
            "reference": ReferenceValues(measurements=(image.measurement,)),
            "parents": (_key_digest(self.parent_identity),),
            "names": image.config.tls.names,
            "channel": image.config.provisioner.channel,
            "secrets": self.secrets,
        }
        record = EnclaveRecord(**fields | changes)  # type: ignore[arg-type] # a test names fields as it needs them
        self.store.put_record(record)
        return record

    def module(self, image: Image, instance_id: str = INSTANCE) -> SimulatedNsm:
        """The security module of a fresh enclave of this image."""
        return SimulatedNsm(self.root, module_id=make_module_id(instance_id), pcrs=image.registers, now=self.now)

    def parent(self, enclave_id: str = "payments", instance_id: str = INSTANCE) -> HostileParent:
        """A parent that buys its tickets honestly, until it is told otherwise."""
        parent = HostileParent(self.nursery, dial=lambda _: self.dial(), tickets=self.tickets(enclave_id, instance_id))
        parent.control = lambda _: Word(instance_id=instance_id)
        return parent

    def tickets(self, enclave_id: str, instance_id: str) -> Callable[[], Awaitable[bytes | None]]:
        """A source of tickets, over TLS with the parent's certificate."""
        source = self.ticket_source(enclave_id, instance_id)

        async def fetch() -> bytes:
            return (await source.fetch()).ticket

        return fetch

    def ticket_source(self, enclave_id: str = "payments", instance_id: str = INSTANCE) -> ProvisionerTickets:
        """The same, as a true parent has it."""
        return ProvisionerTickets(
            ProvisionerOfParent(
                url=ProvisionerUrl(SERVER_NAME, 7443),
                ca=self.folder / "keys" / "server-ca.pem",
                certificate=self.folder / "parent.pem",
                key=self.folder / "parent.key",
            ),
            TicketRequest(enclave_id=enclave_id, instance_id=instance_id),
            now=self.now,
            dial=self.dial,
        )

    def man_in_the_middle(self) -> ManInTheMiddle:
        """An attacker with this provisioner's own key and certificate."""
        return ManInTheMiddle(self.keys.server, roots=self.server_roots(), server_name=SERVER_NAME, dial=self.dial, now=self.now)

    def server_roots(self) -> list[x509.Certificate]:
        """What the provisioner's TLS certificate is judged by."""
        return x509.load_pem_x509_certificates((self.folder / "keys" / "server-ca.pem").read_bytes())

    async def dial(self) -> trio.SocketStream:
        """A connection to the true provisioner."""
        return await connect(self.provisioner)

    # What the provisioner knows.

    def audit(self, *events: str) -> list[audit.AuditEntry]:
        """The audit log, or its entries of some events."""
        return [row.entry for row in audit.entries(self.store) if not events or row.entry.event in events]

    def refusals(self) -> list[str | None]:
        """The reason of each refusal, in order."""
        return [entry.reason for entry in self.audit("refused")]

    def leases(self) -> list[sqlite3.Row]:
        """Every lease that was ever written."""
        with self.store.transaction() as db:
            return db.execute("SELECT * FROM leases ORDER BY issued").fetchall()

    def require_nothing_released_twice(self) -> None:
        """One lease for one evidence, one release for one ticket, whatever happened in between."""
        with self.store.transaction() as db:
            spent = db.execute("SELECT count(*) FROM tickets WHERE used_by IS NOT NULL").fetchone()[0]
            released = db.execute("SELECT ticket, count(*) FROM challenges WHERE state = 'released' GROUP BY ticket").fetchall()
        leases = self.leases()
        assert all(count == 1 for _, count in released)
        assert len(leases) == spent == len(released) == len(self.audit("released"))
        assert len({row["evidence_digest"] for row in leases}) == len({row["lease_id"] for row in leases}) == len(leases)


@asynccontextmanager
async def open_world(
    folder: Path, now: Callable[[], datetime], *, roots: tuple[x509.Certificate, ...] | None = None
) -> AsyncGenerator[World]:
    """A world in a fresh folder. `roots` are those of attestation that the provisioner believes, the world's own by default."""
    made = now() - timedelta(days=1)
    root = make_root(now=made)
    create_keys(folder / "keys", server_names=(SERVER_NAME,), now=made)
    keys = load_keys(folder / "keys")
    store = Store(folder / "store.db")
    config = ProvisionerConfig(version=1, id="provisioner-1", directory=".", roots=("aws",), listen=Tcp("127.0.0.1", 0))
    try:
        async with trio.open_nursery() as nursery:
            endpoint = await nursery.start(
                partial(
                    run_provisioner,
                    config,
                    keys,
                    store,
                    roots or (root.certificate,),
                    clock=lambda: now().timestamp(),
                    log=lambda _: None,
                )
            )
            yield World(
                nursery=nursery,
                folder=folder,
                now=now,
                keys=keys,
                store=store,
                provisioner=endpoint,
                root=root,
                parent_identity=_write_parent_identity(folder, made),
                secrets={name: Secret(delivery="env", value=SecretValue(_value())) for name in ("API_TOKEN", "DATABASE_URL")},
            )
            nursery.cancel_scope.cancel()
    finally:
        store.close()


def _value() -> bytes:
    return secrets.token_urlsafe(32).encode()


def _write_parent_identity(folder: Path, now: datetime) -> TlsIdentity:
    identity = make_ca("parents", now).issue(("parent",), client=True)
    (folder / "parent.pem").write_bytes(identity.chain[0].public_bytes(Encoding.PEM))
    private = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "parent.key").write_bytes(private)
    return identity


def _key_digest(identity: TlsIdentity) -> str:
    public = identity.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki_digest(public).hex()
