"""The role "api": the local attestation API, and the questions to customer processes whether they are ready."""

from functools import partial

import trio

from runtime.enclave.config import EnclaveConfig, Ready
from runtime.enclave.identity.nsm import Nsm
from runtime.enclave.process.ready import follow_readiness
from runtime.enclave.traffic.local_api import serve_local_api
from runtime.enclave.worker.first import First
from runtime.enclave.worker.probe import is_ready
from runtime.protocol.worker_link import Finished, Probed, Started


async def serve_api(first: First, config: EnclaveConfig, listeners: list[trio.SocketListener]) -> None:
    """Serves until told to drain."""
    watched = {process.name: process.ready for process in config.process}
    scopes: dict[str, trio.CancelScope] = {}

    async with trio.open_nursery() as nursery:

        def on_watch(process: str, is_on: bool) -> None:
            if (scope := scopes.pop(process, None)) is not None:
                scope.cancel()
            ready = watched.get(process)
            if is_on and ready is not None and ready.exec is None:
                scopes[process] = trio.CancelScope()
                nursery.start_soon(_watch, first, process, ready, scopes[process])

        first.on_watch = on_watch
        await nursery.start(partial(serve_local_api, listeners, Nsm(first)))
        first.tell(Started())
        await first.drain_asked.wait()
        nursery.cancel_scope.cancel()
    first.tell(Finished())


async def _watch(first: First, process: str, ready: Ready, scope: trio.CancelScope) -> None:
    with scope:
        await follow_readiness(ready, partial(is_ready, ready), lambda answer: first.tell(Probed(process, answer)))
