"""The simulated NSM as a program of its own, so that the root's key is never in the enclave's memory.

python -m runtime.simulator.module FOLDER MODULE_ID INDEX=HEX …
"""

import sys
from pathlib import Path

import trio

from runtime.net.clock import utc_now
from runtime.net.endpoint import Unix, listen
from runtime.simulator.layout import Layout
from runtime.simulator.nsm import SimulatedNsm, serve_nsm
from runtime.simulator.pki import open_root


async def _run(layout: Layout, module_id: str, pcrs: dict[int, bytes]) -> None:
    nsm = SimulatedNsm(open_root(layout.nsm, now=utc_now()), module_id=module_id, pcrs=pcrs, now=utc_now)
    listener = await listen(Unix(str(layout.device)))
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await serve_nsm(nsm, listener)


def main(arguments: list[str]) -> None:
    """Serves until it is ended by a signal."""
    folder, module_id, *registers = arguments
    pcrs = {int(index): bytes.fromhex(value) for index, _, value in (entry.partition("=") for entry in registers)}
    trio.run(_run, Layout(Path(folder)), module_id, pcrs)


if __name__ == "__main__":
    main(sys.argv[1:])
