"""The parent connects the enclave to somebody else than the provisioner. The enclave says goodbye before it has said anything."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from trio.testing import MockClock

from runtime.net.tls import TlsError, TlsIdentity, TlsStream, server_context
from runtime.provisioner.ca import CertificateAuthority, create_authority
from runtime.simulator.hostile_parent import Treatment, dial_to, tls_records
from tests.scenarios.boots import enclave_of
from tests.scenarios.world import SERVER_NAME, World
from tests.support.certificates import make_ca

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
ALERT_SIZE = 5 + 2
"""The record's header, level and description."""


class Impostor:
    """Answers as whoever the identity says, and keeps what it is told."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._context = server_context([identity], min_version="1.3")
        self.told: list[bytes] = []
        self.failures: list[TlsError] = []

    async def handle(self, stream: trio.SocketStream) -> None:
        try:
            async with await TlsStream.accept(stream, self._context) as tls:
                self.told.append(await tls.receive_some())
        except TlsError as error:
            self.failures.append(error)


def _identity(authority: CertificateAuthority, name: str, world: World, *, days_old: int = 0) -> TlsIdentity:
    key = ec.generate_private_key(ec.SECP256R1())
    now = world.now() - timedelta(days=days_old)
    leaf = authority.issue(key.public_key(), (name,), now=now, lifetime=timedelta(hours=1))
    return TlsIdentity(names=(name,), chain=(leaf,), key=key)


def _true_authority(world: World) -> CertificateAuthority:
    folder = world.folder / "keys"
    certificate = x509.load_pem_x509_certificate((folder / "server-ca.pem").read_bytes())
    key = load_pem_private_key((folder / "server-ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return CertificateAuthority(certificate=certificate, key=key)


IMPOSTORS: dict[str, tuple[Callable[[World], TlsIdentity], str]] = {
    "of an authority of its own": (
        lambda world: _identity(create_authority("Enclave Runtime provisioner CA", now=world.now()), SERVER_NAME, world),
        "tls_certificate",
    ),
    "of an authority as the public web has them": (
        lambda world: make_ca("a public CA", world.now()).issue((SERVER_NAME,)),
        "tls_certificate",
    ),
    "self-signed": (
        lambda world: make_ca(SERVER_NAME, world.now()).intermediate(SERVER_NAME).issue((SERVER_NAME,)),
        "tls_certificate",
    ),
    "expired an hour ago, of the right authority": (
        lambda world: _identity(_true_authority(world), SERVER_NAME, world, days_old=1),
        "tls_certificate",
    ),
    "not yet valid, of the right authority": (
        lambda world: _identity(_true_authority(world), SERVER_NAME, world, days_old=-1),
        "tls_certificate",
    ),
    "the issuing CA's leaf for a customer": (
        lambda world: _identity(world.keys.issuing_ca, SERVER_NAME, world),
        "tls_certificate",
    ),
    "for another name, of the right authority": (
        lambda world: _identity(_true_authority(world), "other.test", world),
        "tls_name",
    ),
    "for every name below it, of the right authority": (
        lambda world: _identity(_true_authority(world), f"*.{SERVER_NAME}", world),
        "tls_name",
    ),
}


@pytest.mark.parametrize("name", IMPOSTORS)
async def test_an_impostor_ends_the_boot_and_is_sent_nothing_but_a_hello(mock_clock: MockClock, world: World, name: str) -> None:
    make, reason = IMPOSTORS[name]
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    impostor = Impostor(make(world))
    enclave.parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, impostor.handle))
    booted = await enclave.boot()
    assert booted.reason == reason
    assert enclave.parent.connections("egress") == 1, "there is no use in trying again"
    assert (impostor.told, len(impostor.failures)) == ([], 1)
    sent = enclave.parent.recorded("egress", "out")[0]
    kinds = [(kind, end - start) for kind, start, end in tls_records(sent)]
    assert sum(size for _, size in kinds) == len(sent)
    assert [kind for kind, _ in kinds] == [HANDSHAKE, ALERT]
    assert kinds[-1] == (ALERT, ALERT_SIZE)
    assert world.leases() == []
    assert (await enclave.parent.until_state("failed")).reason == reason


async def test_the_true_provisioner_is_told_more_than_a_hello(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    assert (await enclave.boot()).reason is None
    kinds = [kind for kind, _, _ in tls_records(enclave.parent.recorded("egress", "out")[0])]
    assert kinds[:2] == [HANDSHAKE, CHANGE_CIPHER_SPEC]
    assert kinds.count(APPLICATION_DATA) > 3


async def test_an_impostor_whom_the_parent_shows_once_ends_the_boot_all_the_same(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)
    impostor = Impostor(make_ca("somebody", world.now()).issue((SERVER_NAME,)))
    honest = Treatment()
    hostile = Treatment(dial=dial_to(world.nursery, impostor.handle))
    enclave.parent.egress = lambda number: hostile if number == 1 else honest
    assert (await enclave.boot()).reason == "tls_certificate"
    assert world.audit("hello") == []


async def test_a_server_that_speaks_no_tls_13_gets_no_hello_answered(mock_clock: MockClock, world: World) -> None:
    image = world.image()
    world.register(image)
    enclave = enclave_of(world, image)

    async def old(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(bytes.fromhex("15030100020246"))  # a fatal alert: protocol version

    enclave.parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, old))
    assert (await enclave.boot()).reason == "tls_handshake"
    assert world.leases() == []
