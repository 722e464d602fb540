"""The keys of [[process]] for what a process may have: what is taken, and what is refused with its line and key."""

import pytest

from runtime.enclave.config import EnclaveConfig, Process
from runtime.enclave.config_process import Rlimits
from runtime.toml_text import to_table, to_toml
from tests.enclave.test_config import PROVISIONER, complaint, loaded

WHOLE = """
kind = "job"
groups = [0, 2000]
umask = "027"
restart = "never"
pre_stop = ["/bin/leave", ""]
memory = "512MiB"
pids = 256
rlimits = { nofile = 4096, core = "1MiB", address_space = "8GiB" }
"""


def with_keys(keys: str) -> str:
    return f'version = 1\nenclave.id = "e"\n[[process]]\nname = "app"\n{keys}\n{PROVISIONER}'


def process(keys: str) -> Process:
    config: EnclaveConfig = loaded(with_keys(keys))
    return config.process[0]


def test_every_key_is_taken_and_is_shown_as_it_is_written() -> None:
    app = process(WHOLE)
    assert (app.kind, app.groups, app.umask, app.pre_stop) == ("job", (0, 2000), 0o027, ("/bin/leave", ""))
    assert (app.memory, app.pids) == (512 << 20, 256)
    assert app.rlimits == Rlimits(nofile=4096, core=1 << 20, address_space=8 << 30)
    shown = to_table(app)
    assert (shown["umask"], shown["memory"]) == ("0027", "512MiB")
    assert shown["rlimits"] == {"nofile": 4096, "core": "1MiB", "address_space": "8GiB"}
    again = loaded(with_keys("").replace('[[process]]\nname = "app"\n', to_toml({"process": [shown]})))
    assert again.process[0] == app


def test_what_is_left_out_is_safe() -> None:
    app = process("")
    assert (app.kind, app.groups, app.umask, app.pre_stop, app.memory, app.pids) == ("service", (), 0o022, None, None, None)
    assert app.rlimits == Rlimits(core=0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('kind = "oneshot"', 'process[0].kind: must be one of "service", "job"'),
        ('kind = "job"\nready = { tcp = "a:1" }', "process[0].ready: has no meaning for a job"),
        ('kind = "job"\nrestart = "always"', "process[0].restart: must be never or on-failure"),
        ("groups = [65500]", "process[0].groups[0]: must not be the runtime's own: 65500 to 65519 are reserved"),
        ("groups = [65519]", "process[0].groups[0]: must not be the runtime's own"),
        ("groups = [4294967295]", "process[0].groups[0]: must be from 0 to 4294967294"),
        ("groups = [-1]", "process[0].groups[0]: must be from 0 to 4294967294"),
        ("groups = [1, 1]", "process[0].groups: names 1 more than once"),
        ('groups = ["staff"]', "process[0].groups[0]: must be an integer"),
        ("umask = 22", "process[0].umask: must be a string"),
        ('umask = "0999"', "process[0].umask: must be three octal digits"),
        ('umask = "1022"', "process[0].umask: must be three octal digits"),
        ('umask = "22"', "process[0].umask: must be three octal digits"),
        ("pre_stop = []", "process[0].pre_stop: must not be empty"),
        ('pre_stop = [""]', "process[0].pre_stop[0]: must not be empty"),
        ('memory = "1023KiB"', "process[0].memory: must be from 1MiB"),
        ("memory = 1048576", "process[0].memory: must be a string"),
        ("pids = 0", "process[0].pids: must be from 1"),
        ("rlimits = { nofile = 15 }", "process[0].rlimits.nofile: must be from 16"),
        ("rlimits = { memlok = '1B' }", 'process[0].rlimits.memlok: is not a known key (did you mean "memlock"?)'),
        ("rlimits = { stack = '4KiB' }", "process[0].rlimits.stack: must be from 64KiB"),
    ],
)
def test_what_no_process_can_have_is_refused(keys: str, expected: str) -> None:
    assert expected in complaint(with_keys(keys))
