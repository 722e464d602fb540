"""The enclave's whole boot as a program, between a hostile parent, a faulty security module and a true provisioner."""

import errno
import fcntl
import json
import os
import secrets
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import trio

from runtime.client.session import Policy, Target, open_session
from runtime.enclave.identity.nsm import Nsm
from runtime.net.endpoint import Tcp, bound, listen
from runtime.net.serve import serve
from runtime.net.tls import TlsStream, server_context
from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.measurements import CONFIG_PCR
from runtime.protocol.nsm import GetRandom, NsmErrorCode
from runtime.simulator.hostile_parent import Treatment, Word, dial_to
from runtime.simulator.nsm import Faults
from runtime.verifier.reference import ReferenceValues
from tests.scenarios.boots import MemoryDevice
from tests.scenarios.leaks import find_leaks
from tests.scenarios.machines import (
    PATIENCE,
    Machine,
    connect_ingress,
    free_port,
    local_api,
    real_world,
    running_machine,
    write_script,
)
from tests.scenarios.world import PROCESS, SERVER_NAME, Image, World, measure
from tests.support.certificates import make_ca

INSPECT = """
import fcntl, hashlib, json, os

path = os.environ["LICENSE_FILE"]
descriptor = int(path.rpartition("/")[2])


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def error_of(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0


def write_as_its_owner():
    os.fchmod(descriptor, 0o600)
    writable = os.open(path, os.O_WRONLY)
    os.write(writable, b"x")


found = {
    "mode": os.fstat(descriptor).st_mode & 0o7777,
    "owner": os.fstat(descriptor).st_uid,
    "link": os.readlink(path),
    "seals": fcntl.fcntl(descriptor, fcntl.F_GET_SEALS),
    "write": error_of(lambda: os.write(descriptor, b"x")),
    "write as its owner": error_of(write_as_its_owner),
    "grow": error_of(lambda: os.truncate(path, 1000)),
    "new seals": error_of(lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0)),
    "value": digest(open(path).read()),
    "environment": {name: digest(value) for name, value in os.environ.items()},
}
print(json.dumps(found))
"""
FILE_PROCESSES = """
[[process]]
name = "app"
command = ["python3", "inspect_secrets.py"]
user = "1000:1000"
restart = "never"
secrets = ["API_TOKEN", "LICENSE"]

[[process]]
name = "other"
command = ["python3", "-c", "import os, json; print(json.dumps([dict(os.environ), os.listdir('/proc/self/fd')]))"]
user = "1000:1000"
restart = "never"
after = ["app"]
"""
SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = b"seen: " + body[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


print("the token is", os.environ["API_TOKEN"], flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
REQUEST = b"a request that nobody on the way may read " + secrets.token_hex(16).encode()


async def test_a_file_secret_reaches_its_process_as_a_sealed_memory_file_and_no_other_process_at_all(tmp_path: Path) -> None:
    license_text = secrets.token_hex(32)
    async with real_world(tmp_path) as world:
        image = world.image(tables=FILE_PROCESSES + local_api())
        file = Secret(delivery="file", value=SecretValue(license_text.encode()), file_name="license.txt", file_mode=0o440)
        world.register(image, secrets=world.secrets | {"LICENSE": file})
        write_script(world, "inspect_secrets.py", INSPECT)
        async with running_machine(world, image) as machine:
            assert await machine.ended() == ("stopped", "", 0)
        token = world.secrets["API_TOKEN"].value.reveal().decode()
    found = machine.report("app")
    environment = found.pop("environment")
    assert isinstance(environment, dict)
    assert environment["API_TOKEN"] == sha256(token.encode()).hexdigest()
    assert "LICENSE" not in environment
    assert "DATABASE_URL" not in environment, "which this process is not promised"
    link = found.pop("link")
    assert isinstance(link, str)
    assert link.startswith("/memfd:license.txt")
    assert found == {
        "mode": 0o440,
        "owner": 1000 if os.geteuid() == 0 else os.geteuid(),
        "seals": _SEALS,
        "write": errno.EBADF,
        "write as its owner": errno.EPERM,
        "grow": errno.EPERM,
        "new seals": errno.EPERM,
        "value": sha256(license_text.encode()).hexdigest(),
    }
    assert (
        find_leaks([line.encode() for line in machine.lines("other")], {"token": token.encode(), "file": license_text.encode()})
        == []
    )
    others, descriptors = json.loads(machine.lines("other")[0])
    assert not {"LICENSE", "LICENSE_FILE", "API_TOKEN", "DATABASE_URL"} & set(others)
    assert len(descriptors) == 4, "0, 1, 2 and the folder that is being read"


async def test_a_parent_that_records_a_machine_and_its_clients_learns_no_secret_and_no_body(tmp_path: Path) -> None:
    port = free_port()
    tables = f"""
[[process]]
name = "app"
command = ["python3", "server.py", "{port}"]
user = "1000:1000"
secrets = ["API_TOKEN", "DATABASE_URL"]
ready = {{ tcp = "127.0.0.1:{port}", interval = "100ms", failures = 100 }}

[ingress]
mode = "http"
upstream = "tcp:127.0.0.1:{port}"
"""
    async with real_world(tmp_path) as world:
        image = world.image(tables=tables + local_api())
        world.register(image)
        write_script(world, "server.py", SERVER)
        async with running_machine(world, image) as machine:
            with trio.fail_after(PATIENCE):
                assert (await machine.parent.until_state("ready", "failed")).name == "ready"
                answer = await ask(world, machine)
        lease_keys = {f"lease key {place}": lease["lease_key"] for place, lease in enumerate(world.leases())}
        values = {name: secret.value.reveal() for name, secret in world.secrets.items()}
    assert answer == b"seen: " + REQUEST[::-1]
    assert lease_keys
    kept = [bytes(entry.data) for entry in machine.parent.recording]
    assert {entry.link for entry in machine.parent.recording if entry.data} == {"control", "egress", "ingress"}
    assert find_leaks(kept, {**values, **lease_keys, "request": REQUEST, "answer": answer}) == []
    assert find_leaks(kept, {"an event": b"provisioning.challenged", "access log": b'"POST /orders HTTP/1.1" 200'}) == [
        "an event",
        "access log",
    ]


async def ask(world: World, machine: Machine) -> bytes:
    """A client attests the machine through the parent, and posts something on the same connection."""
    listener = await listen(Tcp("127.0.0.1", 0))
    carry = partial(machine.parent.handle_ingress, connect=partial(connect_ingress, machine))
    await world.nursery.start(partial(serve, listener, carry, limit=4))
    image = measured(machine)
    policy = Policy(
        roots=[world.root.certificate],
        reference=ReferenceValues(measurements=(image.measurement,)),
        ca=[world.keys.issuing_ca.certificate],
    )
    async with open_session(
        Target(host="app.test", port=443), policy, nonce=secrets.token_bytes(32), clock=world.now, address=bound(listener)
    ) as session:
        response = await session.request("POST", "/orders", body=REQUEST)
    assert response.status == 200
    return response.body


def measured(machine: Machine) -> Image:
    return measure((machine.layout.enclave / "enclave.toml").read_bytes())


async def require_failure(machine: Machine, world: World, reason: str) -> None:
    """It ended with this reason, told the parent and its console so, and started no process."""
    assert await machine.ended() == ("failed", reason, 1)
    assert f"[{reason}]" in machine.program.tail()
    assert machine.parent.journal("process_started") == []
    assert machine.exits() == []


FAULTS = {
    "random refused": (Faults(refused={GetRandom: NsmErrorCode.INTERNAL_ERROR}), "entropy_missing", []),
    "an hour slow": (Faults(clock_skew=timedelta(hours=-1)), "provisioner_refused", ["doc_stale"]),
    "an hour fast": (Faults(clock_skew=timedelta(hours=1)), "provisioner_refused", ["doc_future"]),
    "broken": (Faults(errno=errno.EIO), "nsm_io", []),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_a_machine_whose_module_has_a_fault_ends_with_its_reason_and_starts_nothing(tmp_path: Path, what: str) -> None:
    faults, reason, refused = FAULTS[what]
    async with real_world(tmp_path) as world:
        image = world.image()
        world.register(image)
        async with running_machine(world, image, faults=faults) as machine:
            await require_failure(machine, world, reason)
        assert world.leases() == []
        assert world.refusals() == refused


async def test_a_machine_without_a_module_ends_with_its_reason(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image()
        async with running_machine(world, image, has_module=False) as machine:
            await require_failure(machine, world, "nsm_unavailable")


@pytest.mark.parametrize("is_locked", [False, True], ids=["extended", "extended and locked"])
async def test_a_machine_whose_config_register_was_used_before_it_ends_with_its_reason(tmp_path: Path, is_locked: bool) -> None:
    async with real_world(tmp_path) as world:
        image = world.image()
        world.register(image)
        module = world.module(image)
        nsm = Nsm(MemoryDevice(module))
        await nsm.extend_pcr(CONFIG_PCR, b"somebody was here")
        if is_locked:
            await nsm.lock_pcr(CONFIG_PCR)
        async with running_machine(world, image, module=module) as machine:
            await require_failure(machine, world, "nsm_read_only_index" if is_locked else "provisioner_refused")
        assert world.refusals() == ([] if is_locked else ["config_mismatch"])
        assert world.leases() == []


async def test_a_machine_whose_parent_tells_other_host_parameters_ends_with_its_reason(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image()
        world.register(image, host_parameters={"REGION": "here"})
        parent = world.parent()
        parent.control = lambda _: Word(host_parameters={"REGION": "elsewhere"})
        async with running_machine(world, image, parent=parent) as machine:
            await require_failure(machine, world, "provisioner_refused")
        assert world.refusals() == ["config_mismatch"]


async def test_a_machine_that_is_connected_to_an_impostor_ends_with_its_reason(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image()
        world.register(image)
        impostor = server_context([make_ca("somebody", world.now()).issue((SERVER_NAME,))], min_version="1.3")

        async def pose(stream: trio.SocketStream) -> None:
            await TlsStream.accept(stream, impostor)

        parent = world.parent()
        parent.egress = lambda _: Treatment(dial=dial_to(world.nursery, pose))
        async with running_machine(world, image, parent=parent) as machine:
            await require_failure(machine, world, "tls_certificate")
        assert world.audit("hello") == []


async def test_a_secret_that_the_release_does_not_hold_starts_no_process(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        image = world.image(tables=PROCESS + local_api())
        world.register(image, secrets={})
        async with running_machine(world, image) as machine:
            await require_failure(machine, world, "secret_missing")
