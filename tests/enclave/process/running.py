"""Customer processes without a supervisor: what a program says of itself, and the config that makes it."""

import math
from collections.abc import Mapping, Sequence

import trio

from runtime.enclave.config import EnclaveConfig
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.cgroups import Cgroup
from runtime.enclave.process.customer import Customer, Ended, spawn
from runtime.protocol.bundle import Secret
from runtime.protocol.link_values import Stream
from tests.enclave.test_config import PROVISIONER, loaded
from tests.support.outputs import lines_to

API = "http://127.0.0.1:9999"
PATIENCE = 30.0
"""Real seconds that a real process may take on a busy machine."""


def config_of(command: Sequence[str], keys: str = "", tables: str = "") -> EnclaveConfig:
    """One process "app" of exactly this command; `keys` of its table and other `tables` in TOML."""
    words = ", ".join(f"'''{word}'''" for word in command)
    return loaded(f'version = 1\nenclave.id = "e"\n[[process]]\nname = "app"\ncommand = [{words}]\n{keys}\n{tables}\n{PROVISIONER}')


async def start(
    config: EnclaveConfig,
    *,
    image: ImageConfig | None = None,
    secrets: Mapping[str, Secret] | None = None,
    cgroup: Cgroup | None = None,
) -> Customer:
    """The first process of the config."""
    return await spawn(config.process[0], config, image or ImageConfig(), secrets or {}, api=API, cgroup=cgroup)


async def output(
    config: EnclaveConfig, *, image: ImageConfig | None = None, cgroup: Cgroup | None = None
) -> tuple[list[str], Ended]:
    """The lines of the first process's output, and how it ended."""
    lines: list[str] = []

    def on_line(_process: str, _stream: Stream, line: bytes) -> None:
        lines.append(line.decode())

    with trio.fail_after(PATIENCE):
        customer = await start(config, image=image, cgroup=cgroup)
        try:
            ended = await customer.follow(lines_to(on_line), grace=math.inf)
        finally:
            await customer.aclose()
    return lines, ended
