"""The bundle as a machine's first process, in a root that holds nothing else, beside customers' roots of every kind."""

import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL

import pytest
import trio

from runtime.client.session import Policy, Target, open_session
from runtime.net.endpoint import Tcp, Unix, bound, connect, listen
from runtime.net.serve import serve
from runtime.simulator.hostile_parent import HostileParent
from runtime.simulator.nsm import serve_nsm
from runtime.verifier.reference import ReferenceValues
from tests.enclave.init.machines import namespaces_are_forbidden
from tests.enclave.init.test_whole_boot import echo
from tests.image.bundles import PROJECT, bundle
from tests.scenarios.machines import PATIENCE, real_world
from tests.scenarios.world import Image, World

HTTPD = "httpd -f -p 127.0.0.1:8080 -h /srv"
ROOTS = {
    "debian": ["/bin/sh", "-c", f"exec /own/busybox {HTTPD}"],
    "busybox": ["/bin/sh", "-c", f"exec {HTTPD}"],
    "scratch": ["/own/busybox", *HTTPD.split()],
}
"""Customers' roots of each kind, and the program that runs there: from Debian with a dynamic shell, from nothing but one static program."""

PROGRAM = """
import sys
from runtime.enclave.init.early import begin
import socket

def connect(seconds):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(seconds)
    stream.connect("/root/shared/9000")
    return stream

early = begin(connect)

import runtime, trio
runtime.__path__.append("/root/project/runtime")
from runtime.enclave.platform import NitroMachine
from runtime.enclave.run import run
from runtime.net.endpoint import Unix
from runtime.simulator.clock import SimulatedClock
from runtime.simulator.device import SimulatedDevice


class Machine(NitroMachine):
    def __init__(self):
        super().__init__(early)
        self.device = SimulatedDevice("/root/shared/nsm")
        self.clock = SimulatedClock()

    def parent(self, port):
        return Unix(f"/root/shared/{port}")

    def own(self, port):
        return Unix(f"/root/shared/own-{port}")


sys.exit(trio.run(run, Machine()))
"""
"""The bundle's own code; in place of vsock, device and clock are those of a simulation, from the project's folder."""

TABLES = """
[[process]]
name = "app"
command = {command}
user = "1000:1000"
ready = {{ tcp = "127.0.0.1:8080", interval = "100ms", failures = 200 }}

[ingress]
mode = "http"
workers = 2
upstream = "tcp:127.0.0.1:8080"
"""


class Content:
    """What is in the second ramdisk, and the folder that a machine shares with its test."""

    def __init__(self, folder: Path, kind: str, config: bytes) -> None:
        self.folder, self.shared, self.root = folder / "content", folder / "shared", folder / "root"
        customers = self.folder / "rootfs"
        for each in (self.folder, self.shared, self.root, self.folder / "enclave", customers / "srv"):
            each.mkdir(parents=True)
        self.shared.chmod(0o777)
        (customers / "srv/index.html").write_text(f"from {kind}\n")
        self._fill(customers, kind)
        (self.folder / "enclave/enclave.toml").write_bytes(config)
        (self.folder / "enclave/image.json").write_text('{"Cmd":["/nothing"]}\n')
        (self.shared / "program.py").write_text(PROGRAM)

    def _fill(self, customers: Path, kind: str) -> None:
        busybox = shutil.which("busybox")
        assert busybox, "busybox-static is needed: apt-get install busybox-static"
        own = customers / ("bin" if kind == "busybox" else "own")
        own.mkdir()
        shutil.copy(busybox, own / "busybox")
        if kind == "busybox":
            for name in ("sh", "httpd"):
                (own / name).symlink_to("busybox")
        if kind == "debian":
            copy_program("/bin/sh", customers)

    def command(self, *words: str) -> list[str]:
        """What starts the machine with a program of it."""
        folders = [str(folder) for folder in (self.root, bundle(), self.folder, self.shared)]
        return [sys.executable, "-m", "tests.image.bundled_machine", *folders, *words]


def copy_program(name: str, root: Path) -> None:
    """A program of this machine with the libraries that it needs, at the same places below `root`."""
    said = subprocess.run(["ldd", name], capture_output=True, text=True, check=True).stdout
    for path in (name, *re.findall(r"(/\S+) \(0x", said)):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


@asynccontextmanager
async def running(world: World, image: Image, parent: HostileParent, content: Content) -> AsyncGenerator[trio.Process]:
    """The machine with the devices of a simulation, between this world's parent, security module and provisioner."""
    for port, handler in ((9000, echo), (9001, parent.handle_control), (9002, parent.handle_egress)):
        listener = await listen(Unix(str(content.shared / str(port))), mode=0o666)
        await world.nursery.start(partial(serve, listener, handler, limit=16))
    await world.nursery.start(serve_nsm, world.module(image), await listen(Unix(str(content.shared / "nsm"))))
    command = content.command("/usr/bin/python3.11", "-IS", "/root/shared/program.py", "nomodules")
    run = partial(trio.run_process, command, cwd=PROJECT, stdin=DEVNULL, capture_stderr=True, check=False)
    process: trio.Process = await world.nursery.start(run)
    yield process
    with trio.fail_after(PATIENCE):
        process.terminate()
        assert await process.wait() == -signal.SIGHUP, "the machine was restarted, which is how an enclave ends"


async def ask(world: World, image: Image, content: Content, parent: HostileParent) -> bytes:
    """What a client gets who attests the enclave before it asks."""

    async def dial() -> trio.SocketStream:
        return await connect(Unix(str(content.shared / "own-8443")))

    listener = await listen(Tcp("127.0.0.1", 0))
    await world.nursery.start(partial(serve, listener, partial(parent.handle_ingress, connect=dial), limit=4))
    reference = ReferenceValues(measurements=(image.measurement,))
    policy = Policy(roots=[world.root.certificate], reference=reference, ca=[world.keys.issuing_ca.certificate])
    target, nonce = Target(host="app.test", port=443), secrets.token_bytes(32)
    async with open_session(target, policy, nonce=nonce, clock=world.now, address=bound(listener)) as session:
        response = await session.request("GET", "/index.html")
    assert response.status == 200
    return response.body


@pytest.mark.parametrize("kind", ROOTS)
async def test_it_serves_a_customer_of_any_root_from_the_heartbeat_to_the_end_of_the_machine(kind: str, tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    async with real_world(tmp_path) as world:
        image = world.image(tables=TABLES.format(command=json.dumps(ROOTS[kind])))
        world.register(image)
        parent = world.parent()
        content = Content(tmp_path / "machine", kind, image.raw)
        with trio.fail_after(4 * PATIENCE):
            async with running(world, image, parent, content):
                state = await parent.until_state("ready", "failed")
                assert (state.name, state.reason) == ("ready", "")
                assert await ask(world, image, content, parent) == f"from {kind}\n".encode()
        assert (await parent.until_state("stopped", "failed")).name == "stopped"
        assert [entry.fields for entry in parent.journal("init.soft_failed")] == []


@pytest.mark.parametrize("kind", ROOTS)
def test_without_a_security_module_what_the_kernel_starts_says_so_and_ends_the_machine(kind: str, tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path / "machine", kind, (PROJECT / "config/enclave.toml").read_bytes())
    ended = subprocess.run(
        content.command("/init", "nomodules", "quiet"),
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGHUP, "")
    assert "boot.started pid_one=1 uid=0" in ended.stderr
    assert "init.done" in ended.stderr
    assert "boot.failed reason='nsm_unavailable' stage='entropy'" in ended.stderr
    soft = re.findall(r"init.soft_failed step='(\w+)'", ended.stderr)
    assert soft == ["heartbeat"], "there is no parent"
    assert "Traceback" not in ended.stderr


def test_a_ramdisk_that_the_kernel_unpacked_in_part_ends_the_machine_loudly(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path / "machine", "scratch", b"")
    (content.folder / "cut").mkdir()
    program = content.shared / "cut.py"
    program.write_text(
        "import os\n"
        "os.rmdir('/cut')\n"  # as if there had been no memory for it
        "os.execve('/init', ['/init'], {})\n"
    )
    ended = subprocess.run(
        content.command("/usr/bin/python3.11", "-IS", "/root/shared/cut.py"),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGHUP
    assert "[ramdisk_incomplete]" in ended.stderr
    assert "boot.failed reason='ramdisk_incomplete'" in ended.stderr
