"""A whole boot whose lines are sealed: the parent carries them, the operator's key opens them, and no secret is in either."""

import re
from pathlib import Path

from runtime.commands.sealed_series import Opened, SealedSeries
from runtime.protocol.link import Log, Sealed
from runtime.protocol.sealed_logs import LogRecipient, log_key
from runtime.protocol.sealing import Suite
from tests.scenarios.leaks import find_leaks
from tests.scenarios.machines import local_api, real_world, running_machine, write_script

KEY = log_key(Suite.X25519, bytes(range(32)))
SPEAKS = """
import base64, os, sys

token = os.environ["API_TOKEN"]
sys.stdout.write(f"the token is {token}\\n")
sys.stdout.flush()
sys.stderr.write(base64.b64encode(f"Bearer {token}".encode()).decode() + " without an end")
"""


async def test_a_parent_carries_sealed_lines_and_learns_neither_them_nor_a_secret(tmp_path: Path) -> None:
    async with real_world(tmp_path) as world:
        process = "[[process]]\nname = 'app'\ncommand = ['python3', 'speaks.py']\nsecrets = ['API_TOKEN']\nrestart = 'never'\n"
        image = world.image(tables=f"{process}{local_api()}[log]\nencrypt_to = '{LogRecipient(KEY.suite, KEY.public)}'\n")
        world.register(image)
        write_script(world, "speaks.py", SPEAKS)
        values = {name: secret.value.reveal() for name, secret in world.secrets.items()}
        async with running_machine(world, image) as machine:
            assert await machine.ended() == ("stopped", "", 0)
            read = machine.parent.recorded("control", "out")
    (started,) = machine.parent.journal("boot.started")
    boot_id = started.fields["boot_id"]
    assert isinstance(boot_id, bytes)
    reports = [report for _, report in sorted(machine.parent.reports.items())]
    assert not any(isinstance(report, Log) for report in reports)
    assert not any(b"the token is" in data for data in [b"".join(read), *read])
    assert find_leaks(read, values) == []
    series = SealedSeries(KEY)
    opened = [
        item for report in reports if isinstance(report, Sealed) for item in series.open(boot_id, report.sequence, report.sealed)
    ]
    assert list(series.finish()) == []
    lines = [item.line for item in opened if isinstance(item, Opened)]
    assert len(lines) == len(opened)
    (stdout,) = [line for line in lines if line.stream == "stdout"]
    (stderr,) = [line for line in lines if line.stream == "stderr"]
    assert (stdout.data, stdout.is_partial) == (b"the token is [secret API_TOKEN]", False)
    assert re.fullmatch(rb"QmVhcmVyI.\[secret API_TOKEN\][^ ]{0,2}=? without an end", stderr.data)
    assert stderr.is_partial
