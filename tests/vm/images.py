"""An enclave image of the runtime bundle and a small customer, and the machines that boot it."""

import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from runtime.enclave.init.ramdisk import NOT_COUNTED, SENTINEL
from runtime.image.contents import Body, Node, Tree
from runtime.image.cpio import write_cpio
from runtime.image.eif import Section, SectionKind, write_eif
from runtime.net.clock import utc_now
from runtime.net.endpoint import Tcp
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import Faults, SimulatedNsm
from runtime.simulator.pki import open_root
from runtime.simulator.vm.devices import serve_devices
from runtime.simulator.vm.prepare import prepare
from runtime.simulator.vm.qemu import default_folder
from runtime.simulator.vm.vm import Devices, Options
from runtime.simulator.workspace import Simulated
from tests.image.bundles import PROJECT, bundle

KERNEL = PROJECT / ".state/kernel"
LARGE = bytes(range(256)) * 8192
"""2 MiB that the customer serves."""

CONFIG = """
version = 1
[enclave]
id = "booted"
epoch = 3
[[process]]
name = "web"
command = ["/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"]
user = "1000:1000"
secrets = ["TOKEN"]
ready = { tcp = "127.0.0.1:8080", interval = "100ms", timeout = "5s", failures = 3 }
[ingress]
mode = "http"
upstream = "tcp:127.0.0.1:8080"
[tls]
source = "provisioner"
names = ["localhost"]
[provisioner]
url = "https://localhost:1"
ca = "none yet"
keys = ["none yet"]
"""


def make_image(folder: Path) -> Path:
    """An image whose provisioner is that of the folder of a machine, `folder / "machine"`."""
    assert KERNEL.is_dir(), f"no kernel for virtual machines: scripts/kernel {KERNEL}"
    source = folder / "source.toml"
    source.write_text(CONFIG)
    config = prepare(folder / "machine", source).read_bytes()
    first, second = Tree(), Tree()
    _add_folder(first, b"", bundle())
    _add_folder(first, b"modules/", KERNEL / "modules")
    for name, mode in ((b"proc", 0o755), (b"sys", 0o755), (b"run", 0o755), (b"tmp", 0o1777)):
        first.put(name, Node(mode=stat.S_IFDIR | mode))
    first.put(b"dev/console", Node(mode=stat.S_IFCHR | 0o600, device=(5, 1)))
    first.put(b"dev/null", Node(mode=stat.S_IFCHR | 0o666, device=(1, 3)))
    for path, data in (
        (b"enclave/enclave.toml", config),
        (b"enclave/image.json", b'{"Env":["PATH=/bin"]}'),
        (b"rootfs/www/index.html", b"hello\n"),
        (b"rootfs/www/large", LARGE),
    ):
        second.put(path, _file(data))
    second.put(b"rootfs/bin/busybox", _file(Path("/bin/busybox").read_bytes(), 0o755))
    ramdisks = [_archive(first, b""), _archive(second, b"rootfs/")]
    sections = [
        Section(kind=SectionKind.KERNEL, data=(KERNEL / "bzImage").read_bytes()),
        Section(kind=SectionKind.COMMAND_LINE, data=(KERNEL / "cmdline").read_bytes().strip()),
        Section(kind=SectionKind.METADATA, data=b"{}"),
        *(Section(kind=SectionKind.RAMDISK, data=data) for data in ramdisks),
    ]
    image = folder / "booted.eif"
    with image.open("wb") as file:
        file.writelines(write_eif(sections, is_aarch64=False))
    return image


def options_for(image: Path) -> Options:
    """A machine for an image of `make_image`."""
    return Options(
        image=image,
        folder=image.parent / "machine",
        listen=Tcp("127.0.0.1", 0),
        qemu=default_folder(),
        processors=1,
        memory_mib=384,
        as_json=True,
    )


def with_module(faults: Faults | None, made: list[SimulatedNsm]) -> Devices:
    """Devices in this very process, whose module has these faults and comes into `made`; None: there is no module."""

    @asynccontextmanager
    async def devices(layout: Layout, enclave: Simulated) -> AsyncGenerator[Path | None]:
        nsm = None
        if faults is not None:
            root = open_root(layout.nsm, now=utc_now())
            nsm = SimulatedNsm(root, module_id=enclave.module_id, pcrs=enclave.registers, now=utc_now)
            nsm.faults = faults
            made.append(nsm)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_devices, layout, nsm, [enclave.config.ingress.vsock_port])
            yield layout.device if nsm else None
            nursery.cancel_scope.cancel()

    return devices


def _add_folder(tree: Tree, prefix: bytes, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        name = prefix + os.fsencode(path.relative_to(folder))
        mode = path.lstat().st_mode
        if path.is_symlink():
            tree.put(name, Node(mode=mode, target=os.fsencode(path.readlink())))
        elif path.is_dir():
            tree.put(name, Node(mode=mode))
        else:
            tree.put(name, _file(path.read_bytes(), stat.S_IMODE(mode)))


def _file(data: bytes, mode: int = 0o644) -> Node:
    return Node(mode=stat.S_IFREG | mode, body=Body(size=len(data), data=data))


def _archive(tree: Tree, top: bytes) -> bytes:
    """With the sentinel of the folder `top`, whose name comes last enough: the kernel stops at the first write that fails."""
    below = [path[len(top) :] for path, _ in tree.walk() if path.startswith(top)]
    count = sum(path.split(b"/")[0].decode() not in NOT_COUNTED for path in below) + 1
    tree.put(top + SENTINEL.encode(), _file(f"{count}\n".encode()))
    return b"".join(write_cpio(tree, lambda body: iter([body.data or b""])))
