"""An enclave's boot as far as it concerns secrets: the steps of runtime/enclave/boot.py over the same code, without a process of its own.

What these steps leave out (a machine, customer processes) is in the scenarios that start the machine as a program.
"""

import secrets
from dataclasses import dataclass
from functools import partial

import trio

from runtime.enclave.identity.certificates import accept_identities
from runtime.enclave.identity.entropy import seed_entropy
from runtime.enclave.identity.nsm import Nsm, NsmDevice, NsmError
from runtime.enclave.identity.provisioning import Provisioned, Provisioning, ProvisioningFailed
from runtime.enclave.identity.registers import go_live, measure_config
from runtime.enclave.link import ParentLink
from runtime.enclave.traffic.egress import open_egress
from runtime.net.tls import TlsIdentity
from runtime.protocol.errors import ProtocolError
from runtime.protocol.link import Welcome
from runtime.simulator.hostile_parent import HostileParent
from runtime.simulator.nsm import SimulatedNsm
from tests.scenarios.world import Image, World

PARENT_SECONDS = 60.0
FLUSH_SECONDS = 5.0


class MemoryDevice:
    """A security module without a socket in between."""

    is_occupied = False

    def __init__(self, module: SimulatedNsm) -> None:
        self._module = module

    async def exchange(self, request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._module.handle(request)


@dataclass(frozen=True, kw_only=True)
class Booted:
    """How a boot went: with a reason, or with secrets."""

    reason: str | None
    provisioned: Provisioned | None = None
    identities: tuple[TlsIdentity, ...] = ()

    def values(self) -> dict[str, bytes]:
        """The secrets, by name."""
        assert self.provisioned is not None, self.reason
        return {name: secret.value.reveal() for name, secret in self.provisioned.released.bundle.secrets.items()}


class Enclave:
    """One boot of one image behind one parent."""

    def __init__(self, world: World, image: Image, parent: HostileParent, device: NsmDevice) -> None:
        self.world = world
        self.image = image
        self.parent = parent
        self.nsm = Nsm(device)
        self.boot_id = secrets.token_bytes(16)
        self.link = ParentLink(
            parent.connect_control, boot_id=self.boot_id, on_drain=lambda _: None, now=lambda: world.now().timestamp()
        )
        self.provisioning = Provisioning(
            image.config,
            boot_id=self.boot_id,
            runtime="enclave-runtime/test",
            nsm=self.nsm,
            connect=partial(open_egress, parent.connect_egress),
            next_ticket=self.link.ticket,
            note=lambda event, fields: self.link.journal("info", f"provisioning.{event}", **fields),
        )

    async def boot(self) -> Booted:
        """Runs to the point where a customer process would be started, or to the reason why it is not."""
        async with trio.open_nursery() as nursery:
            try:
                booted = await self._boot(nursery)
            except (ProvisioningFailed, NsmError, ProtocolError) as error:
                self.link.send_state("failed", error.reason)
                booted = Booted(reason=error.reason)
            with trio.move_on_after(FLUSH_SECONDS):
                await self.link.flush()
            nursery.cancel_scope.cancel()
        return booted

    async def _boot(self, nursery: trio.Nursery) -> Booted:
        await self.nsm.describe()
        await seed_entropy(self.nsm)
        welcome = await self._meet_parent()
        if welcome is None:
            return Booted(reason="parent_unreachable")
        nursery.start_soon(self.link.run)
        await measure_config(self.nsm, self.image.config.digest, welcome.host_parameters)
        provisioned = await self.provisioning.run()
        identities = accept_identities(provisioned.released.bundle.identities, provisioned.tls_key, now=provisioned.clock.now())
        try:
            await go_live(self.nsm)
        except NsmError:
            await provisioned.confirm("failed")
            raise
        await provisioned.confirm("live")
        return Booted(reason=None, provisioned=provisioned, identities=identities)

    async def _meet_parent(self) -> Welcome | None:
        with trio.move_on_after(PARENT_SECONDS):
            return await self.link.connect()
        return None


def enclave_of(world: World, image: Image, parent: HostileParent | None = None) -> Enclave:
    """An enclave of this image behind this parent, or an honest one."""
    return Enclave(world, image, parent or world.parent(image.config.enclave.id), MemoryDevice(world.module(image)))
