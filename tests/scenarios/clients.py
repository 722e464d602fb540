"""A machine that serves, and its clients: for scenarios in which it is sometimes not ready."""

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from runtime.client.session import Attested, Policy, Target, open_session
from runtime.net.endpoint import Endpoint, Tcp, bound, connect, listen
from runtime.net.http import HttpClient, Response
from runtime.net.serve import serve
from runtime.net.tls import TlsStream, client_context
from runtime.simulator.hostile_parent import HostileParent
from runtime.simulator.nsm import SimulatedNsm
from runtime.verifier.reference import ReferenceValues
from tests.scenarios.machines import PATIENCE, Machine, connect_ingress, running_machine, write_script
from tests.scenarios.world import Image, World, measure

NAME = "app.test"
SERVED = """
[[process]]
name = "app"
command = ["python3", "hello.py", "{port}"]
user = "1000:1000"
ready = {{ tcp = "127.0.0.1:{port}", interval = "100ms", failures = 100 }}

[ingress]
mode = "http"
workers = 2
upstream = "tcp:127.0.0.1:{port}"
"""
_SCRIPT = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")


HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@asynccontextmanager
async def serving(
    world: World,
    image: Image,
    *,
    parent: HostileParent | None = None,
    module: SimulatedNsm | None = None,
    program: str = "runtime.simulator.machine",
) -> AsyncGenerator[Machine]:
    """A machine whose process `SERVED` is ready."""
    write_script(world, "hello.py", _SCRIPT)
    async with running_machine(world, image, parent=parent, module=module, program=program) as machine:
        with trio.fail_after(PATIENCE):
            state = await machine.parent.until_state("ready", "failed")
        assert (state.name, state.reason) == ("ready", "")
        yield machine


@dataclass(frozen=True, kw_only=True)
class Clients:
    """Each call is a client of its own, with a connection of its own through the parent."""

    world: World
    machine: Machine
    address: Endpoint

    async def get(self, path: str) -> Response:
        """The answer to a request that asks for no evidence."""
        with trio.fail_after(PATIENCE):
            context = client_context([self.world.keys.issuing_ca.certificate], now=self.world.now())
            async with await TlsStream.connect(await connect(self.address), context, server_name=NAME) as stream:
                return await HttpClient(stream, host=NAME).request("GET", path, max_body=1 << 16)

    async def attest(self) -> Attested:
        """What fresh evidence says, which must hold."""
        image = measure((self.machine.layout.enclave / "enclave.toml").read_bytes())
        policy = Policy(
            roots=[self.world.root.certificate],
            reference=ReferenceValues(measurements=(image.measurement,)),
            ca=[self.world.keys.issuing_ca.certificate],
        )
        nonce = secrets.token_bytes(32)
        target = Target(host=NAME, port=443)
        with trio.fail_after(PATIENCE):
            async with open_session(target, policy, nonce=nonce, clock=self.world.now, address=self.address) as session:
                return session.attested


async def open_clients(world: World, machine: Machine) -> Clients:
    """Clients of a machine, by way of its parent, until the world ends."""
    listener = await listen(Tcp("127.0.0.1", 0))
    carry = partial(machine.parent.handle_ingress, connect=partial(connect_ingress, machine))
    await world.nursery.start(partial(serve, listener, carry, limit=4))
    return Clients(world=world, machine=machine, address=bound(listener))


async def until_status(clients: Clients, status: int) -> Response:
    """The answer with this status: the parent hears of a change at the same time as the workers, not after them."""
    with trio.fail_after(PATIENCE):
        while (response := await clients.get("/")).status != status:
            await trio.sleep(0.05)  # nobody tells of it, and asking all the time would hold it up
    return response


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what other processes do, in real time."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.02)
