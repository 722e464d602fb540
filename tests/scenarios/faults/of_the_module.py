"""Faults of the security module before the enclave is provisioned, and of the link to the parent."""

import errno
from collections.abc import Callable

import trio

from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.identity.timekeeping import SAMPLES
from runtime.protocol.measurements import CONFIG_PCR
from runtime.protocol.nsm import (
    Attest,
    Attested,
    DescribeNsm,
    ExtendPcr,
    GetRandom,
    LockPcr,
    LockPcrs,
    NsmErrorCode,
    Request,
    decode_request,
    encode_response,
)
from runtime.simulator.hostile_parent import GARBAGE
from runtime.simulator.nsm import Faults
from tests.scenarios.boots import MemoryDevice
from tests.scenarios.clients import until
from tests.scenarios.faults.fault import Act, Fault
from tests.scenarios.faults.of_the_machine import module_has, then
from tests.scenarios.faults.site import OddModule, Site


async def no_module(site: Site) -> None:
    await trio.lowlevel.checkpoint()
    site.has_module = False


def answering(alter: Callable[[Request, bytes], bytes]) -> Act:
    """The module gives other answers than a true one."""

    async def prepare(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.odd_module().alter = lambda request, response: alter(decode_request(request), response)

    return prepare


def no_document(request: Request, response: bytes) -> bytes:
    return encode_response(Attested(document=b"no document at all")) if isinstance(request, Attest) else response


def refused(kind: type[Request], code: NsmErrorCode) -> Act:
    """The module refuses every request of a kind."""
    return module_has(Faults(refused={kind: code}))


async def used_before(site: Site) -> None:
    """Somebody has extended and locked the register of the config."""
    nsm = Nsm(MemoryDevice(site.module))
    await nsm.extend_pcr(CONFIG_PCR, b"somebody was here")
    await nsm.lock_pcr(CONFIG_PCR)


async def stall(site: Site) -> None:
    await module_has(Faults(stall=trio.Event()))(site)


async def wait_for_the_module(site: Site) -> None:
    """A minute passes for the first process when it waits for an answer."""
    stalled = site.module.faults.stall
    assert stalled is not None
    await until(lambda: stalled.statistics().tasks_waiting > 0)
    site.jump()


# The link


async def stalled_link(site: Site) -> None:
    """A parent that takes the connection and says nothing."""
    await trio.lowlevel.checkpoint()
    site.parent.control_cable.is_stalled = True
    site.odd_module()


async def wait_for_the_parent(site: Site) -> None:
    """A minute passes while the enclave waits for its answer; then one comes, too late."""
    cable = site.parent.control_cable
    assert isinstance(site.module, OddModule)
    asked = site.module.asked
    await until(lambda: asked[Attest] == SAMPLES)
    await site.jump_until(lambda: "[parent_unreachable]" in site.program.log.read_text())
    cable.is_stalled = False
    cable.hang_up()


async def cut_for_a_minute(site: Site) -> None:
    cable = site.parent.control_cable
    cable.cut()
    await site.seen("enclave.disconnected", kind="parent")
    site.jump()
    cable.is_down = False


async def fall_silent(site: Site) -> None:
    """Nothing comes from the parent for a minute; the next connection is a good one."""
    cable = site.parent.control_cable
    cable.is_stalled = True
    await site.jump_until(lambda: site.shown("enclave.disconnected", kind="parent"))
    cable.is_stalled = False
    cable.hang_up()


async def talk_nonsense(site: Site) -> None:
    await site.parent.control_cable.say(GARBAGE)


OF_THE_MODULE = (
    Fault(name="there is no security module", reason="nsm_unavailable", prepare=no_module),
    Fault(name="the module stalls", reason="nsm_stalled", prepare=stall, provoke=wait_for_the_module),
    Fault(name="the driver gives up", reason="nsm_timeout", prepare=module_has(Faults(errno=errno.ETIMEDOUT))),
    Fault(name="the driver is interrupted", reason="nsm_interrupted", prepare=module_has(Faults(errno=errno.EINTR))),
    Fault(name="the driver gets no answer", reason="nsm_no_data", prepare=module_has(Faults(errno=errno.ENODATA))),
    Fault(name="the driver reports an error", reason="nsm_io", prepare=module_has(Faults(errno=errno.EIO))),
    Fault(name="the module answers nonsense", reason="nsm_protocol", prepare=answering(lambda _request, _response: b"\xff")),
    Fault(
        name="the module describes itself to nobody",
        reason="nsm_invalid_argument",
        prepare=refused(DescribeNsm, NsmErrorCode.INVALID_ARGUMENT),
    ),
    Fault(name="the module gives no entropy", reason="entropy_missing", prepare=refused(GetRandom, NsmErrorCode.INVALID_OPERATION)),
    Fault(
        name="the module makes no document", reason="nsm_invalid_response", prepare=refused(Attest, NsmErrorCode.INVALID_RESPONSE)
    ),
    Fault(name="the module makes a document that is none", reason="nsm_document", prepare=answering(no_document)),
    Fault(name="the register of the config was used before", reason="nsm_read_only_index", prepare=used_before),
    Fault(
        name="the module extends no register", reason="nsm_invalid_index", prepare=refused(ExtendPcr, NsmErrorCode.INVALID_INDEX)
    ),
    Fault(
        name="the module locks no register",
        reason="nsm_invalid_operation",
        prepare=refused(LockPcr, NsmErrorCode.INVALID_OPERATION),
    ),
    Fault(
        name="the module does not lock the last registers",
        reason="nsm_internal_error",
        prepare=refused(LockPcrs, NsmErrorCode.INTERNAL_ERROR),
    ),
)

OF_THE_LINK = (
    Fault(
        name="the parent does not answer for a minute",
        reason="parent_unreachable",
        prepare=stalled_link,
        provoke=wait_for_the_parent,
    ),
    Fault(
        name="the link is down for a minute",
        event="link.lost",
        reason="closed",
        ends=None,
        provoke=then(cut_for_a_minute),
    ),
    Fault(
        name="the parent is silent for a minute",
        event="link.lost",
        reason="timeout",
        ends=None,
        provoke=then(fall_silent),
    ),
    Fault(
        name="the parent talks nonsense",
        event="link.lost",
        reason="too_large",
        ends=None,
        provoke=then(talk_nonsense),
    ),
)
