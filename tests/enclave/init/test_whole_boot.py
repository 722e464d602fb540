"""The whole program as PID 1 of a machine in which nothing is mounted, between a parent, a security module and a provisioner."""

import signal
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess

import trio

from runtime.net.endpoint import Unix, listen
from runtime.net.serve import serve
from runtime.protocol.link import Log
from runtime.simulator.hostile_parent import HostileParent
from runtime.simulator.nsm import serve_nsm
from tests.enclave.init.machines import COMMON, CUSTOMERS, PROJECT, Content, namespaces_are_forbidden
from tests.scenarios.machines import PATIENCE, real_world
from tests.scenarios.world import Image, World

PROGRAM = """
import os, socket, sys
from pathlib import Path
from tests.enclave.init.new_machine import SYSTEM, show

for name in SYSTEM:
    show(Path(name), Path("/rootfs"))


def connect(seconds):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(seconds)
    stream.connect("/shared/9000")
    return stream


from runtime.enclave.init.early import begin

early = begin(connect)

import trio
from runtime.enclave.run import run
from runtime.enclave.platform import NitroMachine
from runtime.net.endpoint import Unix
from runtime.simulator.clock import SimulatedClock
from runtime.simulator.nsm import SimulatedDevice


class Machine(NitroMachine):
    '''With what this one has in place of an enclave's: vsock, the security module, a clock of its own.'''

    def __init__(self):
        super().__init__(early)
        self.device = SimulatedDevice("/shared/nsm")
        self.clock = SimulatedClock()

    def parent(self, port):
        return Unix(f"/shared/{port}")

    def own(self, port):
        return Unix(f"/shared/own-{port}")


sys.exit(trio.run(run, Machine()))
"""
TABLES = """
[[process]]
name = "app"
command = ["/bin/sh", "-c", "read name < /proc/sys/kernel/hostname; set -- /proc/[0-9]*; test -e /dev/nsm; echo $name $# $?; pwd"]
user = "1000:1000"
restart = "never"
secrets = ["API_TOKEN"]
"""


async def boot(world: World, image: Image, parent: HostileParent, content: Content) -> CompletedProcess[bytes]:
    """Runs a machine with this image to its end."""
    content.write("enclave/enclave.toml", image.raw.decode())
    content.write("enclave/image.json", '{"WorkingDir": "/var"}')
    content.write("rootfs/var/own", "")
    for port, handler in ((9000, echo), (9001, parent.handle_control), (9002, parent.handle_egress)):
        listener = await listen(Unix(str(content.shared / str(port))), mode=0o666)
        await world.nursery.start(partial(serve, listener, handler, limit=16))
    await world.nursery.start(serve_nsm, world.module(image), await listen(Unix(str(content.shared / "nsm"))))
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            content.command(PROGRAM), cwd=PROJECT, stdin=DEVNULL, capture_stdout=True, capture_stderr=True, check=False
        )


async def echo(stream: trio.SocketStream) -> None:
    """The parent's heartbeat port."""
    await stream.send_all(bytes(await stream.receive_some(1)))


async def test_from_an_empty_root_to_the_customers_process_in_its_own_and_to_the_end_of_the_machine(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.complete()
    async with real_world(tmp_path) as world:
        image = world.image(tables=TABLES)
        world.register(image)
        parent = world.parent()
        ended = await boot(world, image, parent, content)
    assert (ended.returncode, ended.stderr.decode()) == (-signal.SIGHUP, "")
    assert (await parent.until_state("failed", "stopped")).name == "stopped"
    assert parent.journal("init.soft_failed") == []
    (done,) = parent.journal("init.done")
    own = ("proc", "dev", "heartbeat", "ramdisk", "sys", "pts", "shm", "run", "tmp", "cgroup")
    assert done.fields["taken"] == len((*own, *CUSTOMERS, *COMMON))
    assert done.fields["left"] == "console,modules,device,subreaper"
    lines = [report.line.decode() for _, report in sorted(parent.reports.items()) if isinstance(report, Log)]
    assert lines == ["payments 1 1", "/var"], "host name, processes that it sees, no security module; the image's folder"


async def test_a_ramdisk_that_was_cut_ends_the_boot_with_its_reason_at_the_parent_and_on_the_console(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.complete()
    content.write("rootfs/.enclave-complete", "1000000\n")
    async with real_world(tmp_path) as world:
        image = world.image(tables=TABLES)
        parent = world.parent()
        content.write("modules/nsm.ko", "no module at all")
        ended = await boot(world, image, parent, content)
        assert world.audit("hello") == []
    assert ended.returncode == -signal.SIGHUP
    assert "[ramdisk_incomplete]" in ended.stderr.decode()
    state = await parent.until_state("failed")
    assert state.reason == "ramdisk_incomplete"
    (soft,) = parent.journal("init.soft_failed")
    assert (soft.level, soft.fields["step"], soft.fields["reason"]) == ("warning", "modules", "module_refused")
    (failed,) = parent.journal("boot.failed")
    assert failed.fields["reason"] == "ramdisk_incomplete"
    assert parent.journal("process_started") == []
