"""The devices of one virtual machine as a program of its own: the simulated security module and the vsock, until the machine ends.

    python -m runtime.simulator.vm.devices FOLDER MODULE_ID PORT,PORT… INDEX=HEX …

The ports are those of the enclave to which the parent connects; the registers are what the platform measured.
"""

import sys
from pathlib import Path

import trio

from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, listen
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import SimulatedNsm
from runtime.simulator.pki import open_root
from runtime.simulator.vm.nsm_device import serve_nsm_device
from runtime.simulator.vm.virtqueue import BadGuest
from runtime.simulator.vm.vsock_device import VsockDevice


async def serve_devices(
    layout: Layout, nsm: SimulatedNsm | None, ports: list[int], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves one machine's devices until it ends; without `nsm` there is a vsock alone. Raises `BadGuest`."""
    vsock = VsockDevice(layout.parent_port)
    async with trio.open_nursery() as nursery:
        if nsm is not None:
            await nursery.start(serve_nsm_device, nsm, await listen(Unix(str(layout.device))))
        own = {port: await listen(layout.enclave_port(port)) for port in ports}
        await nursery.start(vsock.serve, await listen(Unix(str(layout.vsock_device))), own)
        task_status.started()


async def _run(layout: Layout, module_id: str, ports: list[int], pcrs: dict[int, bytes]) -> None:
    nsm = SimulatedNsm(open_root(layout.nsm, now=utc_now()), module_id=module_id, pcrs=pcrs, now=utc_now)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_devices, layout, nsm, ports)
        sys.stdout.write("listening\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Exit status: 0 the machine has ended, 1 it broke the rules."""
    folder, module_id, ports, *registers = arguments
    pcrs = {int(index): bytes.fromhex(value) for index, _, value in (entry.partition("=") for entry in registers)}
    status = 0
    try:
        trio.run(_run, Layout(Path(folder)), module_id, [int(port) for port in ports.split(",")], pcrs)
    except* BadGuest as group:
        sys.stderr.write(f"the virtual machine broke the rules of its devices: {group}\n")
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
