"""The simulated security module as a virtio device: behind it stand the guest's own nsm driver and its /dev/nsm.

Virtio device 33, one queue, no config space (Linux, drivers/misc/nsm.c). For each call the driver puts in two chains, the request and
room for the response, and wants both back at once: the first with nothing written, the second with the response.
"""

import trio

from runtime.simulator.nsm import SimulatedNsm
from runtime.simulator.vm.vhost_user import BackEnd
from runtime.simulator.vm.virtqueue import BadGuest, Chain

VIRTIO_ID = 33
QUEUE_SIZE = 64
"""Descriptors; the driver needs two at a time."""


async def serve_nsm_device(
    nsm: SimulatedNsm, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves `nsm` to the one QEMU that connects to `listener`, until it goes away. Raises `BadGuest`.

    Of the module's faults, `delay` and `stall` hold a call back; the driver gives up after 120 s. Neither `errno` nor `drop_every` can be
    made from here.
    """
    back_end = BackEnd(1)
    (queue,) = back_end.queues
    chains: list[Chain] = []

    async def kicked(_: int) -> None:
        while (chain := queue.take()) is not None:
            chains.append(chain)
            if len(chains) > QUEUE_SIZE:
                raise BadGuest(f"more than {QUEUE_SIZE} chains without room for a response")
            if not chain.writable:
                continue
            if nsm.faults.stall is not None:
                await nsm.faults.stall.wait()
            await trio.sleep(nsm.faults.delay)
            response = nsm.handle(b"".join(each.read() for each in chains))
            if chain.room < len(response):
                raise BadGuest(f"room for {chain.room} bytes of a response that has {len(response)}")
            written = chain.write(response)
            queue.give_back(*((each, written if each is chain else 0) for each in chains))
            chains.clear()

    task_status.started()
    await back_end.serve(listener, kicked)
