"""Both ends of PROV/1 on one bench, without a network: a provisioner on a database of its own, and enclaves with simulated modules.

Every message is in the test's hands between two steps, to be altered, held back or sent twice. Keys and roots are made once for all
tests of a process; the clock stands still until a test moves it.

    bench = Bench(folder)                    the provisioner's end
    attempt = bench.boot().attempt()         the enclave's end: one boot, one handshake
    release = attempt.run()                  or step by step: greet, evidence, prove, opened, confirm
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from runtime.enclave.identity.certificates import TlsKey, make_tls_key
from runtime.protocol.bundle import Lease, Secret, SecretValue
from runtime.protocol.digest import digest
from runtime.protocol.handshake import DocumentRequest, EnclaveClaims, EnclaveHandshake, Released
from runtime.protocol.measurements import CONFIG_PCR, KEY_PCR, LIVE_PCR, config_commitment, key_commitment, live_commitment
from runtime.protocol.messages import Challenge, Outcome, TicketReply, TicketRequest
from runtime.protocol.nsm import Attest, Attested, ExtendPcr, LockPcr, Request, Response, decode_response, encode_request
from runtime.protocol.sealing import SealingKey, Suite, generate_key
from runtime.provisioner import audit
from runtime.provisioner.config import Limits, ProvisionerConfig
from runtime.provisioner.keys import ProvisionerKeys, create_keys, load_keys
from runtime.provisioner.records import EnclaveRecord
from runtime.provisioner.service import Caller, Service
from runtime.provisioner.store import Store
from runtime.simulator.nsm import SimulatedNsm
from runtime.simulator.pki import Authority, make_root
from runtime.verifier.reference import Measurement, ReferenceValues

NOW = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
PROVISIONER_ID = "provisioner-1"
ENCLAVE_ID = "payments-prod"
INSTANCE = "i-0123456789abcdef0"
MODULE_ID = f"{INSTANCE}-enc0123456789abcdef"
ADDRESS = "192.0.2.7"
PARENT_KEY = "a5" * 48
NAMES = ("pay.example.com", "www.pay.example.com")
IMAGE: Mapping[int, bytes] = {0: b"\x01" * 48, 1: b"\x02" * 48, 2: b"\x03" * 48}
OTHER_IMAGE: Mapping[int, bytes] = {0: b"\x11" * 48, 1: b"\x02" * 48, 2: b"\x13" * 48}
CONFIG_DIGEST = digest(b"the enclave.toml as baked")
EPOCH = 7
SECRET = b"correct horse battery staple"
RUNTIME = "enclave-runtime/0.1.0"
UNLIMITED = Limits(requests_per_enclave=10_000.0, requests_per_address=10_000.0, burst=10_000)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a provisioner and the platform have before any enclave boots. `root_key` signs statements for release keys."""

    keys: ProvisionerKeys
    root_key: Ed25519PrivateKey
    server_ca: x509.Certificate
    attestation: Authority

    @property
    def pinned(self) -> bytes:
        """The root key as enclave.toml pins it."""
        return self.root_key.public_key().public_bytes_raw()


@cache
def ground() -> Ground:
    """The keys, made by the provisioner's own code."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "keys"
        create_keys(folder, server_names=("localhost",), now=NOW)
        root_key = load_pem_private_key((folder / "root.key").read_bytes(), None)
        return Ground(
            keys=load_keys(folder),
            root_key=cast("Ed25519PrivateKey", root_key),
            server_ca=x509.load_pem_x509_certificate((folder / "server-ca.pem").read_bytes()),
            attestation=make_root(now=NOW),
        )


class Clock:
    """Unix seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.unix = NOW.timestamp()

    def __call__(self) -> float:
        return self.unix

    def moment(self) -> datetime:
        """The same as an aware datetime."""
        return datetime.fromtimestamp(self.unix, UTC)

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.unix += seconds


class Connection:
    """What a TLS connection is to PROV/1: a secret of its two ends, exported over the challenge's id."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def exporter(self, context: bytes) -> bytes:
        """32 bytes."""
        return hmac.digest(self._secret, context, "sha256")


def reference(image: Mapping[int, bytes] = IMAGE, *, epoch: int = EPOCH) -> ReferenceValues:
    """Reference values of one build."""
    return ReferenceValues(measurements=(Measurement(name="a build", pcrs=dict(image), epoch=epoch),))


def record(**changes: Any) -> EnclaveRecord:
    """What is registered of the enclave unless a test says otherwise."""
    fields: dict[str, Any] = {
        "enclave_id": ENCLAVE_ID,
        "reference": reference(),
        "parents": (PARENT_KEY,),
        "names": NAMES,
        "addresses": (ADDRESS,),
        "secrets": {"API_KEY": Secret(delivery="env", value=SecretValue(SECRET))},
    }
    return EnclaveRecord(**fields | changes)


class Bench:
    """A provisioner with one record; `changes` are fields of the record."""

    def __init__(
        self, folder: Path, *, roots: Sequence[x509.Certificate] | None = None, limits: Limits = UNLIMITED, **changes: Any
    ) -> None:
        self.clock = Clock()
        self.path = folder / "store.db"
        self.store = Store(self.path)
        self.record = record(**changes)
        self.store.put_record(self.record)
        self.roots = [ground().attestation.certificate] if roots is None else roots
        self.config = ProvisionerConfig(version=1, id=PROVISIONER_ID, directory=".", roots=("aws",), limits=limits)
        self.service = Service(self.config, ground().keys, self.store, self.roots, self.clock)
        self._connections = 0
        self._requests = 0

    def put(self, **changes: Any) -> None:
        """Changes the record."""
        self.record = replace(self.record, **changes)
        self.store.put_record(self.record)

    def connect(self) -> Connection:
        """A new connection to the provisioner."""
        self._connections += 1
        return Connection(self._connections.to_bytes(32, "big"))

    def caller(self, connection: Connection | None = None, *, address: str = ADDRESS, key_digest: str | None = None) -> Caller:
        """A request on `connection`, as the server describes it to the service."""
        self._requests += 1
        exporter = (connection or self.connect()).exporter
        return Caller(address=address, request_id=f"request-{self._requests}", key_digest=key_digest, exporter=exporter)

    def ticket(self, *, enclave_id: str = ENCLAVE_ID, instance_id: str = INSTANCE, parent: str = PARENT_KEY) -> bytes:
        """A ticket, bought by the registered parent or another one."""
        request = TicketRequest(enclave_id=enclave_id, instance_id=instance_id)
        reply = self.service.ticket(request.encode(), self.caller(key_digest=parent))
        return TicketReply.decode(reply).ticket

    def boot(self, **options: Any) -> "Boot":
        """An enclave that has just booted; see `Boot`."""
        return Boot(self, **options)

    def audited(self) -> list[audit.AuditEntry]:
        """The audit log, oldest first."""
        return [row.entry for row in audit.entries(self.store, limit=100_000)]

    def challenge_state(self, challenge_id: bytes) -> str:
        """What became of a challenge."""
        with self.store.transaction() as db:
            row = db.execute("SELECT state FROM challenges WHERE challenge_id = ?", (challenge_id,)).fetchone()
            return str(row["state"])

    def leases(self) -> list[tuple[str, str]]:
        """(enclave_id, state) of every lease that was ever written."""
        with self.store.transaction() as db:
            return [(row["enclave_id"], row["state"]) for row in db.execute("SELECT enclave_id, state FROM leases ORDER BY issued")]

    def bundle_version(self, enclave_id: str = ENCLAVE_ID) -> int:
        """How many bundles were made for an enclave."""
        with self.store.transaction() as db:
            row = db.execute("SELECT bundle_version FROM records WHERE enclave_id = ?", (enclave_id,)).fetchone()
            return int(row["bundle_version"])

    def close(self) -> None:
        """Closes the database."""
        self.store.close()


class Boot:
    """One boot of an enclave: its module, its measured config, and the sealing key that PCR 17 commits to once it is made.

    `pcrs` are what the platform measured, `root` who signs for the module, `config_digest` and `host_parameters` what PCR 16 holds.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        enclave_id: str = ENCLAVE_ID,
        module_id: str = MODULE_ID,
        pcrs: Mapping[int, bytes] = IMAGE,
        debug: bool = False,
        config_digest: bytes = CONFIG_DIGEST,
        host_parameters: Mapping[str, str] | None = None,
        root: Authority | None = None,
        names: tuple[str, ...] = (),
        boot_id: bytes = bytes(range(16)),
    ) -> None:
        self.bench = bench
        self.nsm = SimulatedNsm(root or ground().attestation, module_id=module_id, pcrs=pcrs, now=bench.clock.moment, debug=debug)
        self.claims = EnclaveClaims(
            enclave_id=enclave_id,
            epoch=EPOCH,
            config_digest=config_digest,
            boot_id=boot_id,
            runtime=RUNTIME,
            root_keys=(ground().pinned,),
        )
        self.tls_key: TlsKey | None = make_tls_key(names) if names else None
        self.key: SealingKey | None = None
        self.register(CONFIG_PCR, config_commitment(config_digest, host_parameters or {}))

    def ask(self, request: Request) -> Response:
        """What the module answers."""
        return decode_response(self.nsm.handle(encode_request(request)))

    def register(self, index: int, data: bytes, *, lock: bool = True) -> None:
        """Extends a register, and locks it so that documents show it."""
        self.ask(ExtendPcr(index=index, data=data))
        if lock:
            self.ask(LockPcr(index=index))

    def attest(self, *, nonce: bytes | None = None, user_data: bytes | None = None, public_key: bytes | None = None) -> bytes:
        """A document of the module."""
        answer = self.ask(Attest(nonce=nonce, user_data=user_data, public_key=public_key))
        assert isinstance(answer, Attested)
        return answer.document

    def make_key(self, suite: Suite, *, commit: bool = True) -> SealingKey:
        """The one sealing key of this boot; PCR 17 commits to it unless a test wants otherwise."""
        if self.key is None:
            self.key = generate_key(suite)
            if commit:
                self.register(KEY_PCR, key_commitment(self.key.public))
        return self.key

    def go_live(self) -> None:
        """PCR 18, as before the first customer process."""
        self.register(LIVE_PCR, live_commitment())

    def attempt(self, **options: Any) -> "Attempt":
        """A handshake; see `Attempt`."""
        return Attempt(self, **options)


class Attempt:
    """One handshake of a boot. Without `ticket` it buys one; `channel` False leaves the connection out of the transcript.

    With `lease` it renews that one, with a sealing key of its own.
    """

    def __init__(
        self,
        boot: Boot,
        *,
        ticket: bytes | None = None,
        suites: Sequence[Suite] = (Suite.X25519,),
        channel: bool = True,
        lease: Lease | None = None,
    ) -> None:
        self.boot = boot
        self.bench = boot.bench
        self.handshake = EnclaveHandshake(boot.claims, lease)
        self.connection = self.bench.connect()
        self.ticket = self.bench.ticket() if ticket is None else ticket
        self.challenge: Challenge
        self.asked: DocumentRequest
        self.message: bytes
        self._own_key = None if lease is None else generate_key(Suite.X25519)
        self._suites = suites
        self._has_channel = channel

    def hello(self) -> bytes:
        """The hello message."""
        return self.handshake.hello(ticket=self.ticket, client_nonce=bytes(range(100, 132)), suites=self._suites)

    def greet(self, hello: bytes | None = None) -> Challenge:
        """Hello and challenge; `hello` is sent in place of the enclave's own."""
        own = self.hello()
        caller = self.bench.caller(self.connection)
        self.challenge = self.handshake.receive_challenge(self.bench.service.hello(own if hello is None else hello, caller))
        return self.challenge

    def commit(self, *, key: bytes | None = None, request: bytes | None = None) -> DocumentRequest:
        """What the document must commit to; `key` and `request` stand in for the boot's sealing key and certificate request."""
        tls_key = self.boot.tls_key
        self.asked = self.handshake.commit(
            hpke_public_key=self.key.public if key is None else key,
            channel=self.connection.exporter(self.challenge.challenge_id) if self._has_channel else None,
            certificate_request=request if request is not None or tls_key is None else tls_key.request,
        )
        return self.asked

    @property
    def key(self) -> SealingKey:
        """The sealing key: the boot's, or a renewal's own."""
        return self._own_key or self.boot.make_key(Suite(self.challenge.suite))

    def document(self) -> bytes:
        """The document that was asked for."""
        return self.boot.attest(nonce=self.asked.nonce, user_data=self.asked.user_data, public_key=self.asked.public_key)

    def evidence(self, document: bytes | None = None, *, key: bytes | None = None, request: bytes | None = None) -> bytes:
        """Commit, document and evidence message; `document` stands in for the module's."""
        self.commit(key=key, request=request)
        self.message = self.handshake.evidence(self.document() if document is None else document)
        return self.message

    def prove(self, message: bytes | None = None, *, connection: Connection | None = None, address: str = ADDRESS) -> bytes:
        """What the provisioner answers to the evidence. Raises `Failure`."""
        caller = self.bench.caller(connection or self.connection, address=address)
        return self.bench.service.evidence(self.message if message is None else message, caller)

    def opened(self, release: bytes, *, last_bundle_version: int = 0) -> Released:
        """The release as the enclave reads it."""
        now = int(self.bench.clock())
        return self.handshake.receive_release(release, key=self.key, now=now, last_bundle_version=last_bundle_version)

    def confirm(self, outcome: Outcome = "live") -> bytes:
        """The confirm message, sent."""
        message = self.handshake.confirm(outcome)
        self.bench.service.confirm(message, self.bench.caller(self.connection))
        return message

    def ready(self) -> "Attempt":
        """Everything up to the evidence message."""
        self.greet()
        self.evidence()
        return self

    def held(self) -> Lease:
        """The lease that everything up to a confirm has earned."""
        released = self.opened(self.run())
        self.confirm()
        return Lease(lease_id=released.header.lease_id, key=released.bundle.lease_key, bundle_version=released.bundle.version)

    def run(self) -> bytes:
        """Everything up to the release message."""
        return self.ready().prove()
