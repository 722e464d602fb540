"""Faults of the machine itself: its first steps, what is baked into it, its ports, its clock, its memory."""

import os
import re
import signal
from dataclasses import replace
from datetime import timedelta
from errno import EIO
from functools import partial

import trio

from runtime.enclave.init.steps import STEPS, Step
from runtime.net.endpoint import Tcp, Unix, listen
from runtime.net.serve import serve
from runtime.protocol.nsm import Attest, NsmErrorCode
from runtime.simulator.nsm import Faults
from tests.scenarios.faults.fault import APP, Act, Fault, both
from tests.scenarios.faults.site import Site
from tests.scenarios.test_memory import meminfo, vmstat

LOST_CLOCK = """
[limits]
clock_age = "1s"
clock_offset = "500ms"
"""
ALL_REFUSED = "the kernel refuses all that an enclave can do without"
_OF_THEIR_OWN = frozenset({"ramdisk", "modules", "heartbeat"})
"""Steps for which something real is broken, and not the kernel."""


def refused_step(name: str) -> Act:
    """One step more is refused."""

    async def prepare(site: Site) -> None:
        await broken(steps=(*site.broken.steps, name))(site)

    return prepare


def broken(**what: object) -> Act:
    """Something in the machine is broken."""

    async def prepare(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.broken = replace(site.broken, **what)  # type: ignore[arg-type] # fields of Broken

    return prepare


def baked(raw: bytes | None) -> Act:
    """Another enclave.toml is baked, or none."""

    async def prepare(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.raw = raw

    return prepare


def module_has(faults: Faults) -> Act:
    """The module has these faults, or from now on."""

    async def act(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        site.module.faults = faults

    return act


async def half_a_ramdisk(site: Site) -> None:
    folder = site.layout.base / "ramdisk"
    folder.mkdir()
    (folder / ".enclave-complete").write_text("1000\n")
    await broken(steps=("ramdisk",))(site)


async def bad_kernel_module(site: Site) -> None:
    folder = site.layout.base / "modules"
    folder.mkdir()
    (folder / "nsm.ko").write_bytes(b"no module at all")
    await broken(steps=("modules",))(site)


def heartbeat(answer: bytes | None) -> Act:
    """A parent that gives this answer; None: none for ever."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        if answer is None:
            await trio.sleep_forever()
        elif answer:
            await stream.send_all(answer)

    async def prepare(site: Site) -> None:
        listener = await listen(Unix(str(site.layout.sockets / "heartbeat.sock")), mode=0o666)
        await site.world.nursery.start(partial(serve, listener, handle, limit=1))
        await broken(steps=("heartbeat",), heartbeat_seconds=0.5 if answer is None else 30.0)(site)

    return prepare


async def taken_port(site: Site) -> None:
    at = site.image.config.attestation.listen
    assert isinstance(at, Tcp)
    await broken(taken_port=at.port)(site)


async def taken_resolver(site: Site) -> None:
    await broken(taken_port=53)(site)


async def taken_ingress(site: Site) -> None:
    listener = await listen(site.layout.enclave_port(8443))
    await site.world.nursery.start(partial(serve, listener, trio.aclose_forcefully, limit=1))


def memory_used(percent: int) -> Act:
    """The kernel says that so much of the memory is used."""

    async def act(site: Site) -> None:
        await trio.lowlevel.checkpoint()
        meminfo(site.layout.base, percent)
        if not (site.layout.base / "proc" / "vmstat").exists():
            vmstat(site.layout.base, 0)

    return act


async def kill_for_memory(site: Site) -> None:
    """What the kernel does: it counts, and it kills."""
    await site.ready()
    app = await site.pid_of("app")
    vmstat(site.layout.base, 1)
    os.kill(app, signal.SIGKILL)


def then(*acts: Act) -> Act:
    """One after the other, once the enclave is ready."""

    async def act(site: Site) -> None:
        await site.ready()
        for each in acts:
            await each(site)

    return act


async def jump(site: Site) -> None:
    """A minute passes for the first process."""
    await trio.lowlevel.checkpoint()
    site.jump()


async def measured_again(site: Site) -> None:
    """What is measured every minute, more or less, is measured."""
    await site.jump_until(lambda: site.shown("clock.unread"))


def _failing_step(step: Step) -> Fault:
    """The kernel refuses what a step asks for."""
    name = f"the kernel refuses to {re.split(',(?! 1)|;| in which| where', step.does)[0].replace('`', '')}"
    prepare = refused_step(step.name)
    if step.severity == "fatal":
        return Fault(name=name, reason=step.reasons[0], prepare=prepare)
    return Fault(name=name, event="init.soft_failed", reason=step.reasons[0], ends=None, scene=ALL_REFUSED, prepare=prepare)


STEPS_REFUSED = tuple(_failing_step(step) for step in STEPS if step.name not in _OF_THEIR_OWN)

OF_THE_MACHINE = (
    *STEPS_REFUSED,
    Fault(name="the memory does not suffice for a ramdisk", reason="ramdisk_incomplete", prepare=half_a_ramdisk),
    Fault(
        name="a kernel module that the image brings is none",
        event="init.soft_failed",
        reason="module_refused",
        ends=None,
        prepare=bad_kernel_module,
    ),
    *(
        Fault(name=f"the parent {does}", event="init.soft_failed", reason=reason, ends=None, prepare=prepare)
        for does, reason, prepare in (
            ("has no heartbeat port", "heartbeat_unavailable", broken(steps=("heartbeat",))),
            ("does not answer the heartbeat", "heartbeat_timeout", heartbeat(None)),
            ("hangs up on the heartbeat", "heartbeat_closed", heartbeat(b"")),
            ("answers the heartbeat with another byte", "heartbeat_wrong", heartbeat(b"\0")),
        )
    ),
    Fault(name="enclave.toml is missing", reason="config_unreadable", prepare=baked(None)),
    Fault(name="enclave.toml is wrong", reason="config_invalid", prepare=baked(b"version = 2\n")),
    Fault(name="the image's config is missing", reason="image_unreadable", prepare=broken(is_image_missing=True)),
    Fault(name="the image's config is wrong", reason="image_config", prepare=broken(image="[]")),
    Fault(name="the port of the local API is taken", reason="local_api_listen", prepare=taken_port),
    Fault(name="the port of the resolver is taken", reason="egress_listen", prepare=taken_resolver),
    Fault(
        name="the port of the ingress is taken",
        reason="ingress_listen",
        tables=APP + '\n[ingress]\nmode = "tcp"\nupstream = "tcp:127.0.0.1:1"\n',
        prepare=taken_ingress,
    ),
    Fault(name="the kernel lets nobody set the clock", reason="clock_not_set", prepare=broken(is_clock_stuck=True)),
    Fault(
        name="the clock is off by a year", event="clock.stepped", reason="", ends=None, prepare=broken(clock_offset=365 * 86400.0)
    ),
    Fault(
        name="the clock goes wrong while it runs",
        event="clock.stale",
        reason="clock_offset",
        ends=None,
        tables=APP + LOST_CLOCK,
        provoke=then(module_has(Faults(clock_skew=timedelta(seconds=2)))),
        mend=module_has(Faults()),
    ),
    Fault(
        name="the module gives no time while it runs",
        event="clock.stale",
        reason="clock_age",
        ends=None,
        tables=APP + LOST_CLOCK,
        provoke=then(module_has(Faults(refused={Attest: NsmErrorCode.INTERNAL_ERROR}))),
        mend=module_has(Faults()),
    ),
    Fault(
        name="the module breaks while it runs",
        event="clock.unread",
        reason="nsm_io",
        ends=None,
        provoke=then(module_has(Faults(errno=EIO)), measured_again),
        mend=module_has(Faults()),
    ),
    Fault(
        name="the memory runs out",
        event="starting",
        reason="memory_shed",
        kind="state",
        ends=None,
        prepare=memory_used(20),
        provoke=then(memory_used(95), jump),
        mend=both(memory_used(20), jump),
    ),
    Fault(
        name="the kernel kills a process for want of memory",
        event="process.killed",
        reason="oom_killed",
        ends=None,
        prepare=memory_used(20),
        provoke=kill_for_memory,
    ),
)
