"""A parent as a process of its own, the explicit proxy in front of it, and clients that go through both to an echo."""

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from runtime.enclave.traffic.egress_proxy import EgressProxy
from runtime.enclave.traffic.egress_road import Flow, Road, RoadLimits
from runtime.net.endpoint import Unix, connect
from runtime.net.hub_accept import Accepting
from runtime.net.hub_relay import Means
from tests.egress.policies import policy
from tests.egress.wire import echo
from tests.support.hubs import running_hub

PATIENCE = 60.0


@dataclass
class Site:
    """`restart` kills the parent, and starts another in its place."""

    folder: Path
    proxy: int
    behind: int
    flows: list[Flow]
    parent: trio.Process

    async def restart(self) -> None:
        """The next connection is taken by the new one when this returns."""
        self.parent.send_signal(signal.SIGKILL)
        await self.parent.wait()
        self.parent = await started(self.folder)

    async def open(self) -> trio.SocketStream:
        """A connection to the echo through all. Raises OSError when it is refused."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.proxy)
        try:
            await stream.send_all(f"CONNECT 127.0.0.1:{self.behind} HTTP/1.1\r\n\r\n".encode())
            answer = bytes(await stream.receive_some(4096))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if not answer.startswith(b"HTTP/1.1 200 "):
            await stream.aclose()
            raise ConnectionRefusedError(answer[:40])
        return stream

    async def once(self) -> None:
        """A short connection: one word, and its echo. Raises OSError and what a stream raises."""
        async with await self.open() as stream:
            await stream.send_all(b"word")
            if await stream.receive_some(10) != b"word":
                raise ConnectionResetError

    def resident(self) -> int:
        """KiB of the parent's memory."""
        text = Path(f"/proc/{self.parent.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))

    def descriptors(self) -> int:
        """Of the parent."""
        return sum(1 for _ in Path(f"/proc/{self.parent.pid}/fd").iterdir())


async def started(folder: Path) -> trio.Process:
    """A parent that takes connections."""
    parent = await trio.lowlevel.open_process(
        [sys.executable, "-c", "from runtime.cli import main; raise SystemExit(main())", "parent", str(folder / "parent.toml")],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await (await connect(Unix(str(folder / "egress.sock")))).aclose()
            except OSError:
                await trio.sleep(0.02)
            else:
                return parent


@asynccontextmanager
async def site(folder: Path) -> AsyncGenerator[Site]:
    """All of it; clients are to be gone at the end of the block."""
    (folder / "parent.toml").write_text(f"""
version = 1
instance_id = "i-0"
[enclave]
id = "load"
ingress = "unix:{folder}/ingress.sock"
[listen]
public = "tcp:127.0.0.1:0"
control = "unix:{folder}/control.sock"
egress = "unix:{folder}/egress.sock"
[egress]
allow_loopback = true
""")
    rules = policy('[egress]\nallow = [{ cidr = "127.0.0.0/8", ports = ["1024-65535"], tls = false }]\n')
    flows: list[Flow] = []
    with echo() as behind:
        parent = await started(folder)
        async with running_hub() as hub:
            with Means() as means:
                road = Road(rules, Unix(str(folder / "egress.sock")), means, record=flows.append, limits=RoadLimits())
                listening = socket.create_server(("127.0.0.1", 0))
                accepting = Accepting(hub, listening, EgressProxy(road.carry, record=flows.append).serve, limit=1000)
                there = Site(folder, listening.getsockname()[1], behind, flows, parent)
                try:
                    yield there
                finally:
                    accepting.close()
                    there.parent.kill()
                    await there.parent.wait()
