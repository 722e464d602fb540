"""An enclave image of the runtime bundle and a small customer, and the machines that boot it."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

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
from tests.scenarios.programs import enclave

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
    (folder / "source.toml").write_text(CONFIG)
    config = prepare(folder / "machine", folder / "source.toml")
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "www").mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "www/index.html").write_text("hello\n")
    (root / "www/large").write_bytes(LARGE)
    image = folder / "booted.eif"
    built = enclave("build", root, "-c", config, "-o", image, "--kernel", KERNEL, "--runtime", bundle())
    assert built.returncode == 0, built.stderr
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
