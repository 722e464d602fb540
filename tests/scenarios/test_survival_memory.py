"""File systems in memory that are full: the process that filled them is told so, and the first process needs none of them."""

import json
import os
import signal
from hashlib import sha256
from pathlib import Path

from runtime.protocol.bundle import Secret, SecretValue
from tests.enclave.init.machines import namespaces_are_forbidden
from tests.scenarios.clients import SERVED, open_clients, serving, until, until_status
from tests.scenarios.machines import free_port, local_api, real_world, running_machine, write_script
from tests.scenarios.test_survival import first_process
from tests.scenarios.test_survival_link import states
from tests.scenarios.test_time import children, command_line

SMALL = "tests.scenarios.small_machine"
FILLER = """
[[process]]
name = "filler"
command = ["python3", "filler.py"]
user = "1000:1000"
secrets = ["KEY"]
restart = "always"
"""
_FILLER = """
import errno, hashlib, json, os, time


def fill(folder):
    try:
        with open(folder + "/all", "ab") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    except OSError as error:
        return errno.errorcode[error.errno]


key = open(os.environ["KEY_FILE"], "rb").read()
print(json.dumps([fill("/dev/shm"), fill("/run"), hashlib.sha256(key).hexdigest()]), flush=True)
time.sleep(3600)
"""
VALUE = b"a key that comes as a file"


async def test_full_file_systems_stop_neither_a_restart_nor_a_secret_nor_a_request_nor_a_drain(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    async with real_world(tmp_path) as world:
        world.secrets["KEY"] = Secret(delivery="file", value=SecretValue(VALUE), file_name="key", file_mode=0o400)
        image = world.image(tables=SERVED.format(port=free_port()) + FILLER + local_api())
        world.register(image, secrets=world.secrets)
        write_script(world, "filler.py", _FILLER)
        async with serving(world, image, program=SMALL) as machine:
            clients = await open_clients(world, machine)
            await until(lambda: len(machine.lines("filler")) == 1)
            (filler,) = [pid for pid in children(first_process(machine)) if b"filler.py" in command_line(pid)]
            os.kill(filler, signal.SIGKILL)
            await until(lambda: len(machine.lines("filler")) == 2)
            await until(lambda: states(machine)[-1] == "ready")
            await until_status(clients, 200)
            assert (await clients.attest()).result.reference is not None
        assert states(machine)[-1] == "stopped"
    told = [json.loads(line) for line in machine.lines("filler")]
    assert told == 2 * [["ENOSPC", "ENOSPC", sha256(VALUE).hexdigest()]]


async def test_a_socket_for_which_there_is_no_room_ends_the_boot_with_its_reason_before_any_process(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    async with real_world(tmp_path) as world:
        image = world.image(tables=SERVED.format(port=free_port()) + local_api() + 'socket = "/run/attestation.sock"\n')
        world.register(image)
        async with running_machine(world, image, program=SMALL) as machine:
            assert await machine.ended() == ("failed", "local_api_listen", 1)
        assert machine.parent.journal("process_started") == []
