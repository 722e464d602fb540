"""Faults of provisioning: tickets, the way to the provisioner, its refusals, its answers. Each ends the boot before anything is granted."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from runtime.enclave.identity.nsm import Nsm
from runtime.net.http import Request, Response, serve_http
from runtime.net.tls import TlsIdentity, TlsStream, server_context
from runtime.protocol import cbor
from runtime.protocol.cbor import MESSAGE_MAX
from runtime.protocol.measurements import KEY_PCR
from runtime.provisioner.ca import CertificateAuthority
from runtime.provisioner.keys import make_statement
from runtime.simulator.hostile_parent import GARBAGE, Handler, join
from runtime.simulator.nsm import Faults, SimulatedNsm, make_module_id
from runtime.simulator.stolen_key import Name
from runtime.verifier.reference import ReferenceValues
from tests.scenarios.boots import MemoryDevice
from tests.scenarios.faults.fault import Act, Fault
from tests.scenarios.faults.of_the_machine import module_has
from tests.scenarios.faults.site import Site
from tests.scenarios.middle import Edit, altering, flip, flipped, header, put, release_part
from tests.scenarios.world import OTHER_INSTANCE, SERVER_NAME, World
from tests.support.certificates import make_ca

ONCE = "attempts = 1"
_DAY = timedelta(days=1)
_CHUNK = 64 * 1024


# The way there


async def no_tickets(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    site.parent.tickets = None


async def nobody_there(site: Site) -> None:
    async def refuse() -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError

    await trio.lowlevel.checkpoint()
    site.parent.dial = refuse


def answered_by(handler: Callable[[Site], Handler]) -> Act:
    """Somebody else answers where the provisioner should."""

    async def prepare(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.parent.dial = partial(join, site.world.nursery, handler(site))

    return prepare


def posing_as(identity: Callable[[World], TlsIdentity]) -> Act:
    """A TLS server with this certificate, which hangs up after the handshake."""

    def handler(site: Site) -> Handler:
        context = server_context([identity(site.world)], min_version="1.3")

        async def pose(stream: trio.SocketStream) -> None:
            await (await TlsStream.accept(stream, context)).aclose()

        return pose

    return answered_by(handler)


def impostor(world: World) -> TlsIdentity:
    return make_ca("somebody", world.now()).issue((SERVER_NAME,))


def other_name(world: World) -> TlsIdentity:
    """What the provisioner's own CA has issued to somebody else."""
    folder = world.folder / "keys"
    key = load_pem_private_key((folder / "server-ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    authority = CertificateAuthority(certificate=load_pem_x509_certificate((folder / "server-ca.pem").read_bytes()), key=key)
    own = ec.generate_private_key(ec.SECP256R1())
    names = ("other.test",)
    return TlsIdentity(names=names, chain=(authority.issue(own.public_key(), names, now=world.now(), lifetime=_DAY),), key=own)


async def _garble(stream: trio.SocketStream) -> None:
    await stream.receive_some(_CHUNK)
    await stream.send_all(GARBAGE)
    while await stream.receive_some(_CHUNK):
        pass


async def _hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some(_CHUNK)


def balancer(site: Site) -> Handler:
    """What stands in front of a provisioner that is down."""
    context = server_context([site.world.keys.server], min_version="1.3")

    async def page(_: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(502, (("content-type", "text/html"),), b"<h1>502 Bad Gateway</h1>")

    async def serve(stream: trio.SocketStream) -> None:
        await serve_http(await TlsStream.accept(stream, context), page, max_body=MESSAGE_MAX)

    return serve


async def garbled_egress(site: Site) -> None:
    """The parent itself answers nonsense."""
    await trio.lowlevel.checkpoint()
    site.parent.egress_cable.handler = _garble


# What the provisioner refuses


def record(**changes: object) -> Act:
    """The operator's record says something else."""

    async def prepare(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.register(**changes)

    return prepare


async def other_measurement(site: Site) -> None:
    other = {**site.image.registers, 2: bytes(48)}
    await record(reference=ReferenceValues(measurements=(replace(site.image.measurement, pcrs=other),)))(site)


async def older_epoch(site: Site) -> None:
    await record(reference=ReferenceValues(measurements=(replace(site.image.measurement, epoch=6),)))(site)


async def revoked(site: Site) -> None:
    """The record is revoked when a ticket has been bought."""
    await trio.lowlevel.checkpoint()
    site.parent.after_ticket = partial(site.register, status="revoked")


async def broken_store(site: Site) -> None:
    """The provisioner's database breaks when a ticket has been bought."""

    def drop() -> None:
        with site.world.store.transaction() as db:
            db.execute("ALTER TABLE challenges RENAME TO lost")

    await trio.lowlevel.checkpoint()
    site.parent.after_ticket = drop


async def debug_mode(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    site.odd_module(is_debug=True)


async def other_instance(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    module_id = make_module_id(OTHER_INSTANCE)
    site.module = SimulatedNsm(site.world.root, module_id=module_id, pcrs=site.image.registers, now=site.world.now)


async def key_register_used(site: Site) -> None:
    await Nsm(MemoryDevice(site.module)).extend_pcr(KEY_PCR, b"somebody was here")


# What a man in the middle does, who holds the provisioner's TLS key


def altered(name: Name, edit: Edit) -> Act:
    """He alters every message of a name."""

    def handler(site: Site) -> Handler:
        middle = site.world.man_in_the_middle()
        middle.alter = altering(name, edit)
        return middle.handle

    return answered_by(handler)


def _statement(site: Site, *, is_old: bool) -> Edit:
    """The key statement of another root, or an old one of the true root."""
    folder = site.world.folder / "keys"
    true_root = load_pem_private_key((folder / "root.key").read_bytes(), None)
    assert isinstance(true_root, Ed25519PrivateKey)
    root = true_root if is_old else Ed25519PrivateKey.generate()
    made = site.world.now() - 200 * _DAY if is_old else site.world.now()
    return header(8, cbor.decode(make_statement(root, site.world.keys.release_key, now=made)))


def stated(*, is_old: bool) -> Act:
    async def prepare(site: Site) -> None:
        await altered("release", _statement(site, is_old=is_old))(site)

    return prepare


def _refused(name: str, audit: str, prepare: Act, *, channel: str = "exporter") -> Fault:
    """Peers learn that they are refused; the operator reads in the audit log why."""
    return Fault(name=name, reason="provisioner_refused", audit=audit, prepare=prepare, channel=channel)


OF_PROVISIONING = (
    Fault(name="the provisioner gives the parent no tickets", reason="ticket_unavailable", provisioner=ONCE, prepare=no_tickets),
    Fault(name="the provisioner cannot be reached", reason="provisioner_unreachable", provisioner=ONCE, prepare=nobody_there),
    Fault(
        name="the connection is lost",
        reason="connection_lost",
        provisioner=ONCE,
        prepare=posing_as(lambda world: world.keys.server),
    ),
    Fault(name="what answers speaks no TLS", reason="tls_handshake", provisioner=ONCE, prepare=answered_by(lambda _: _garble)),
    Fault(
        name="what answers hangs up at once",
        reason="tls_closed",
        provisioner=ONCE,
        prepare=answered_by(lambda _: _hang_up),
    ),
    Fault(name="an impostor answers", reason="tls_certificate", prepare=posing_as(impostor)),
    Fault(name="somebody else of the same authority answers", reason="tls_name", prepare=posing_as(other_name)),
    Fault(
        name="a balancer answers in the provisioner's place",
        reason="provisioner_unintelligible",
        provisioner=ONCE,
        prepare=answered_by(balancer),
    ),
    Fault(name="the parent garbles egress", reason="too_large", provisioner=ONCE, prepare=garbled_egress),
    Fault(name="the record is revoked", reason="provisioner_revoked", audit="record_inactive", prepare=revoked),
    Fault(
        name="all leases are out", reason="provisioner_busy", audit="lease_quota", provisioner=ONCE, prepare=record(lease_quota=0)
    ),
    Fault(name="the provisioner's database is broken", reason="provisioner_internal", provisioner=ONCE, prepare=broken_store),
    _refused("the image is another", "measurement_unknown", other_measurement),
    _refused("the build is too old", "epoch_floor", record(epoch_floor=8)),
    _refused("the parent says something else of the host", "config_mismatch", record(host_parameters={"REGION": "elsewhere"})),
    _refused("the enclave is in debug mode", "debug_enclave", debug_mode),
    _refused("the module's clock is slow", "doc_stale", module_has(Faults(clock_skew=timedelta(hours=-1)))),
    _refused("the module's clock is fast", "doc_future", module_has(Faults(clock_skew=timedelta(hours=1)))),
    _refused("the register of the key was used before", "phase_not_setup", key_register_used),
    _refused("the ticket is of another instance", "host_instance", other_instance),
    _refused("the parent's role is not allowed", "host_role", record(roles=())),
    _refused("the provisioner's address is not the instance's", "source_ip", record(strict_source_ip=True)),
    _refused("the record allows no name", "csr_invalid", record(names=())),
    _refused("the record allows no suite", "suite_refused", record(suites=())),
    _refused("somebody stands in between", "transcript_mismatch", altered("hello", flip(3)), channel="none"),
    _refused("somebody alters the challenge", "nonce_mismatch", altered("challenge", flip(3)), channel="none"),
    _refused("somebody alters the document", "doc_signature", altered("evidence", flip(1, -1)), channel="none"),
    Fault(
        name="the challenge is gone",
        reason="provisioner_challenge_gone",
        audit="challenge_unknown",
        provisioner=ONCE,
        channel="none",
        prepare=altered("challenge", flip(2)),
    ),
    Fault(
        name="the provisioner speaks another version",
        reason="provisioner_unsupported_version",
        audit="unsupported_version",
        channel="none",
        prepare=altered("hello", put(0, [2])),
    ),
    Fault(
        name="the provisioner does not understand",
        reason="provisioner_malformed",
        audit="malformed",
        channel="none",
        prepare=altered("hello", put(9, 0)),
    ),
    Fault(
        name="the challenge is of no known version",
        reason="version_not_offered",
        channel="none",
        prepare=altered("challenge", put(0, 2)),
    ),
    Fault(
        name="the challenge is of no known suite",
        reason="suite_not_offered",
        channel="none",
        prepare=altered("challenge", put(1, 9)),
    ),
    Fault(name="the challenge is malformed", reason="malformed", channel="none", prepare=altered("challenge", put(6, 0))),
    Fault(name="the release is nothing", reason="truncated", channel="none", prepare=altered("release", lambda _: b"")),
    Fault(
        name="the release is garbage", reason="cbor_reserved", channel="none", prepare=altered("release", lambda _: b"\xff" * 40)
    ),
    Fault(
        name="the release is signed by another",
        reason="bad_signature",
        channel="none",
        prepare=altered("release", release_part(3, flipped)),
    ),
    Fault(name="the release key is of another root", reason="key_not_pinned", channel="none", prepare=stated(is_old=False)),
    Fault(name="the release key's statement has run out", reason="key_not_valid_now", channel="none", prepare=stated(is_old=True)),
    Fault(name="the release is for an older build", reason="epoch_older", prepare=older_epoch),
)
