"""The customer's root file system: what a process finds in it, and that nothing of ours is within its reach."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.enclave.platform import ImageConfig
from tests.enclave.process.supervised import config, outcome, process

IS_ROOT = os.geteuid() == 0
PROGRAMS = ("/bin/sh", "/bin/ls", "/bin/cat")


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    """A root of three programs and what they are linked with."""
    root = tmp_path / "rootfs"
    for program in PROGRAMS:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for file in (program, *(word for word in listed.split() if word.startswith("/"))):
            target = root / file.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(file).resolve(), target)
    (root / "data").mkdir()
    (root / "data" / "theirs").write_text("the customer's own\n")
    (tmp_path / "ours").write_text("the runtime's own\n")
    return root


def in_root(root: Path, **fields: object) -> ImageConfig:
    return ImageConfig(root=str(root), **fields)  # type: ignore[arg-type] # a test names fields as it needs them


async def test_a_process_lives_in_its_own_root(root: Path) -> None:
    script = "ls /; cat theirs; cat /data/theirs"
    supervised = await outcome(config(process("app", script)), image=in_root(root, directory="/data"))
    if IS_ROOT:
        assert supervised.lines("app") == [*sorted(entry.name.encode() for entry in root.iterdir()), *[b"the customer's own"] * 2]
    else:  # who is not root cannot change it; such a machine has no root of the customer's, and a folder that is not there is told
        assert supervised.failure is not None
        assert supervised.failure.reason == "spawn_failed"


@pytest.mark.parametrize("way", ["../../ours", "/../ours", "/proc/1/root/etc/hostname", "/proc/self/fd/3", "{outside}"])
async def test_a_process_finds_no_way_out_of_its_root(root: Path, way: str) -> None:
    path = way.format(outside=root.parent / "ours")
    supervised = await outcome(config(process("app", f"cat {path}; true")), image=in_root(root, directory="/"))
    assert supervised.lines("app") == [] or not IS_ROOT
    assert (root.parent / "ours").read_text() == "the runtime's own\n"


async def test_a_command_is_looked_for_in_the_customers_root_and_nowhere_else(root: Path) -> None:
    """/bin/true is this machine's and not in there."""
    supervised = await outcome(config('[[process]]\nname = "app"\ncommand = ["/bin/true"]\n'), image=in_root(root))
    if IS_ROOT:
        assert supervised.failure is not None
        assert supervised.failure.reason == "command_missing"
    else:
        assert supervised.status == 0


async def test_a_root_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    supervised = await outcome(config(process("app", "echo here")), image=in_root(tmp_path / "none"))
    if IS_ROOT:
        assert supervised.failure is not None
        assert supervised.failure.reason == "spawn_failed"
        assert supervised.lines("app") == []
    else:
        assert supervised.lines("app") == [b"here"]
