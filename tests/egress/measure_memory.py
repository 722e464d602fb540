"""What many short connections leave in a parent, and how soon one that was killed is used again:

    python -m tests.egress.measure_memory [CONNECTIONS]

Each goes through the explicit proxy, the road and a whole `enclave parent` to an echo. Prints one JSON object.
"""

import json
import sys
import tempfile
from pathlib import Path

import trio

from tests.scenarios.egress_load import Site, site

CONNECTIONS = 10_000
_WARM = 1000
_AT_ONCE = 8


async def main(count: int) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        async with site(Path(folder)) as it:
            await short(it, _WARM)
            memory, descriptors = it.resident(), it.descriptors()
            begun = trio.current_time()
            await short(it, count)
            seconds = trio.current_time() - begun
            grown, left = it.resident() - memory, it.descriptors() - descriptors
            it.parent.kill()
            await it.parent.wait()
            await it.restart()
            begun = trio.current_time()
            await it.once()
            found = {
                "connections": count,
                "seconds": round(seconds, 1),
                "memory_kib": memory,
                "memory_grown_kib": grown,
                "descriptors_left": left,
                "first_connection_of_a_new_parent_ms": round((trio.current_time() - begun) * 1000, 1),
            }
    sys.stdout.write(json.dumps(found) + "\n")


async def short(it: Site, count: int) -> None:
    """So many connections of one word."""

    async def some() -> None:
        for _ in range(count // _AT_ONCE):
            await it.once()

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(some)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else CONNECTIONS)
