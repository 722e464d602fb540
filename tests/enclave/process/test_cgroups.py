"""Control groups: what is written where, what falls back, and what a real kernel does with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.enclave.process.cgroups import Cgroup, CgroupUnavailable, make_cgroup

LIMITS = ("memory.max", "memory.oom.group", "memory.swap.max", "pids.max")


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """The files of a kernel's cgroup file system, as plain ones: our group is /own, the one of the process "app" below it is there."""
    own = tmp_path / "mount" / "own"
    (own / "process-app").mkdir(parents=True)
    (tmp_path / "mount" / "cgroup.controllers").touch()
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").touch()
    for name in (*LIMITS, "cgroup.procs", "cgroup.kill"):
        (own / "process-app" / name).touch()
    (tmp_path / "self").write_text("4:memory:/elsewhere\n0::/own\n")
    return tmp_path / "mount"


def make(mount: Path, *, memory: int | None = 1 << 20, pids: int | None = 7) -> Cgroup:
    return make_cgroup("app", memory=memory, pids=pids, mount=mount, own_group=mount.parent / "self")


def refused(mount: Path) -> str:
    with pytest.raises(CgroupUnavailable) as error:
        make(mount)
    return error.value.reason


def written(mount: Path) -> dict[str, str]:
    return {name: (mount / "own" / "process-app" / name).read_text() for name in LIMITS}


def test_a_group_below_ours_gets_the_limits_and_dies_as_a_whole(mount: Path) -> None:
    group = make(mount)
    assert (mount / "own" / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert written(mount) == {"memory.max": str(1 << 20), "memory.oom.group": "1", "memory.swap.max": "0", "pids.max": "7"}
    assert group.procs == str(mount / "own" / "process-app" / "cgroup.procs")
    group.close()
    assert (mount / "own" / "process-app" / "cgroup.kill").read_text() == "1"


def test_only_what_is_asked_for_is_limited(mount: Path) -> None:
    make(mount, memory=None)
    assert (mount / "own" / "cgroup.subtree_control").read_text() == "+pids"
    assert written(mount) == {"memory.max": "", "memory.oom.group": "", "memory.swap.max": "", "pids.max": "7"}


def test_what_is_delegated_already_is_not_asked_for_again(mount: Path) -> None:
    control = mount / "own" / "cgroup.subtree_control"
    control.write_text("memory pids\n")
    make(mount)
    assert control.read_text() == "memory pids\n"


def test_a_kernel_without_swap_is_none_the_worse(mount: Path) -> None:
    (mount / "own" / "process-app" / "memory.swap.max").unlink()
    make(mount)
    assert (mount / "own" / "process-app" / "memory.max").read_text() == str(1 << 20)


def test_no_second_version_no_group(mount: Path) -> None:
    (mount / "cgroup.controllers").unlink()
    assert refused(mount) == "absent"


def test_a_process_in_no_group_of_the_second_version_has_none(mount: Path) -> None:
    (mount.parent / "self").write_text("4:memory:/elsewhere\n")
    assert refused(mount) == "absent"
    (mount.parent / "self").unlink()
    assert refused(mount) == "absent"


def test_a_controller_that_the_kernel_keeps_elsewhere_is_missing(mount: Path) -> None:
    (mount / "own" / "cgroup.controllers").write_text("cpu pids\n")
    assert refused(mount) == "controller"


@pytest.mark.parametrize("name", ["memory.max", "memory.oom.group", "pids.max"])
def test_a_limit_that_cannot_be_set_leaves_no_group_half_made(mount: Path, name: str) -> None:
    (mount / "own" / "process-app" / name).unlink()
    assert refused(mount) == "denied"
    assert not (mount / "own" / "process-app" / name).exists(), "nothing is ever made by writing"


def test_the_peak_and_the_kills_are_what_the_kernel_counted(mount: Path) -> None:
    group = make(mount)
    assert (group.peak_kib(), group.oom_kills()) == (None, 0)
    (group.path / "memory.peak").write_text("5242880\n")
    (group.path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n")
    assert (group.peak_kib(), group.oom_kills()) == (5120, 3)


PROGRAM = r"""
import json, os, sys, trio
from pathlib import Path
from runtime.enclave.process.cgroups import CgroupUnavailable, make_cgroup
from runtime.simulator.namespaces import CLONE_NEWNS, make_private, mount, unshare
from tests.enclave.process.running import config_of, output

unshare(CLONE_NEWNS | 0x02000000)  # CLONE_NEWCGROUP
make_private(Path("/"))
mount("tmpfs", Path("/sys/fs/cgroup"), "tmpfs")
mount("cgroup2", Path("/sys/fs/cgroup"), "cgroup2")
name = f"test-{os.getpid()}"
said = {}
plain = make_cgroup(name, memory=None, pids=None)
lingers = "setsid sh -c 'echo $$; exec sleep 1000' 2>/dev/null & cat /proc/self/cgroup; sleep 0.2"
lines, _ = trio.run(lambda: output(config_of(["/bin/sh", "-c", lingers]), cgroup=plain))
said["inside"] = f"0::/process-{name}" in lines
runaway = next(int(line) for line in lines if line.isdecimal())
said["ran on"] = Path(f"/proc/{runaway}").exists()
plain.close()
for _ in range(200):
    if not plain.path.exists() or "populated 0" in (plain.path / "cgroup.events").read_text():
        said["left"] = 0
        break
    __import__("time").sleep(0.05)
plain.close()
said["there"] = plain.path.exists()
said["available"] = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
try:
    group = make_cgroup(name, memory=32 << 20, pids=4)
except CgroupUnavailable as error:
    said["reason"] = error.reason
else:
    eat = "head -c 209715200 /dev/zero | tail >/dev/null"  # which keeps a line that does not end
    _, ended = trio.run(lambda: output(config_of(["/bin/sh", "-c", eat]), cgroup=group))
    said["signal"], said["oom_kills"], said["peak_kib"] = ended.signal, ended.oom_kills, ended.peak_kib
    fork = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    lines, _ = trio.run(lambda: output(config_of(["/bin/sh", "-c", fork]), cgroup=group))
    said["fork"] = "\n".join(lines)
    group.close()
print(json.dumps(said))
"""


def test_on_this_kernel_a_group_holds_all_that_a_run_started() -> None:
    """As in an enclave: cgroup v2 is mounted at its place, and our group is the root of what is seen of it."""
    if os.geteuid() != 0:
        with pytest.raises(CgroupUnavailable):
            make_cgroup("app", memory=1 << 20, pids=None)
        return
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert (said["inside"], said["ran on"], said["left"], said["there"]) == (True, True, 0, False)
    if "reason" in said:  # a kernel that keeps the controllers in version 1, or a container that delegates none
        assert said["reason"] == ("denied" if {"memory", "pids"} <= set(said["available"]) else "controller")
    else:
        assert (said["signal"], said["oom_kills"] > 0) == (9, True)
        assert 0 < said["peak_kib"] <= 32 * 1024
        assert "fork" in said["fork"].lower()
