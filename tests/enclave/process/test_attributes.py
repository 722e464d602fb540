"""What a customer process is made of, read back from the kernel by the process itself."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from runtime.enclave.config import EnclaveConfig
from runtime.enclave.platform import ImageConfig
from runtime.enclave.process.customer import SpawnFailed
from tests.enclave.process.running import API, config_of, output, start

IS_ROOT = os.geteuid() == 0
UID, GID = (1000, 1001) if IS_ROOT else (os.geteuid(), os.getegid())
USER = 'user = "1000:1001"'
STATUS = ("/bin/cat", "/proc/self/status")
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


async def status(keys: str = "") -> dict[str, list[str]]:
    """/proc/self/status of a process with these keys."""
    lines, ended = await output(config_of(STATUS, f"{USER}\n{keys}" if "user" not in keys else keys))
    assert not ended.is_failure
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


async def limits(config: EnclaveConfig) -> dict[str, tuple[str, str]]:
    """(soft, hard) of /proc/self/limits by name, of a process whose command prints it."""
    lines, _ = await output(config)
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines[1:]}


async def test_a_process_has_its_own_user_and_groups_and_no_capability() -> None:
    said = await status("groups = [2000, 2001]")
    assert said["Uid"] == [str(UID)] * 4
    assert said["Gid"] == [str(GID)] * 4
    if IS_ROOT:
        assert said["Groups"] == ["2000", "2001"]
        assert {name: int(said[name][0], 16) for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 0)
    assert said["NoNewPrivs"] == ["1"]


async def test_without_groups_a_process_is_in_none_of_ours() -> None:
    said = await status()
    assert said["Groups"] == ([] if IS_ROOT else [str(group) for group in sorted(os.getgroups())])


async def test_user_0_of_the_image_is_no_more_than_a_number() -> None:
    said = await status('user = "0:0"')
    if IS_ROOT:
        assert {name: int(said[name][0], 16) for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 0)
    assert said["NoNewPrivs"] == ["1"]


async def test_a_process_starts_with_default_signals_and_nothing_blocked() -> None:
    """Whatever this process itself ignores, catches and blocks, as Python does with SIGPIPE and trio with SIGCHLD."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        said = await status()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert {name: int(said[name][0], 16) for name in ("SigIgn", "SigCgt", "SigBlk", "SigPnd", "ShdPnd")} == {
        "SigIgn": 0, "SigCgt": 0, "SigBlk": 0, "SigPnd": 0, "ShdPnd": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("keys", "expected"), [("", "0022"), ('umask = "0077"', "0077"), ('umask = "002"', "0002")])
async def test_a_process_has_the_umask_of_its_table(keys: str, expected: str) -> None:
    assert (await status(keys))["Umask"] == [expected]


async def test_a_process_leads_a_session_and_a_group_of_its_own() -> None:
    (line,), _ = await output(config_of(["/bin/cat", "/proc/self/stat"]))
    pid, rest = line.split(" ", 1)
    _state, _parent, group, session = rest.rpartition(") ")[2].split(" ")[:4]
    assert group == session == pid


async def test_a_process_has_no_descriptor_but_the_standard_ones() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        lines, _ = await output(config_of(["/bin/ls", "/proc/self/fd"]))
    finally:
        os.close(read)
        os.close(write)
    assert lines == ["0", "1", "2", "3"], "3 is the folder that ls itself reads"


async def test_standard_input_is_empty_and_the_outputs_are_pipes() -> None:
    lines, _ = await output(config_of(["/usr/bin/readlink", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]))
    assert lines[0] == "/dev/null"
    assert [line.split(":")[0] for line in lines[1:]] == ["pipe", "pipe"]
    assert lines[1] != lines[2]


async def test_the_words_of_a_command_reach_the_program_as_they_are() -> None:
    words = ["a b", "$HOME", "*", "", ";", "'", '"', "$(id)", "\\n", "é"]
    lines, _ = await output(config_of(["/usr/bin/printf", "%s|", *words]))
    assert lines == ["|".join(words) + "|"]


async def test_the_environment_is_the_images_and_the_configured_one_and_nothing_else() -> None:
    image = ImageConfig(environment={"PATH": "/usr/bin", "LANG": "C"})
    lines, _ = await output(config_of(["env"], "env = { LANG = 'de', EMPTY = '' }"), image=image)
    assert sorted(lines) == ["EMPTY=", f"ENCLAVE_ATTESTATION_URL={API}", "LANG=de", "PATH=/usr/bin"]


@pytest.mark.parametrize(("keys", "expected"), [("", "/usr"), ('workdir = "/etc"', "/etc")])
async def test_a_process_begins_in_its_folder_or_the_images(keys: str, expected: str) -> None:
    lines, _ = await output(config_of(["/usr/bin/readlink", "/proc/self/cwd"], keys), image=ImageConfig(directory="/usr"))
    assert lines == [expected]


async def test_a_process_has_the_limits_of_its_table_and_else_those_of_all() -> None:
    rlimits = (
        'nofile = 100, core = "4KiB", stack = "1MiB", memlock = "64KiB", data = "1GiB", address_space = "2GiB", fsize = "1MiB"'
    )
    command = ["/bin/cat", "/proc/self/limits"]
    own = await limits(config_of(command, f"{USER}\nrlimits = {{ {rlimits}, nproc = 50 }}"))
    expected = {
        "Max open files": "100",
        "Max core file size": "4096",
        "Max stack size": str(1 << 20),
        "Max locked memory": "65536",
        "Max data size": str(1 << 30),
        "Max address space": str(2 << 30),
        "Max file size": str(1 << 20),
    } | ({"Max processes": "50"} if IS_ROOT else {})
    assert {name: own[name] for name in expected} == {name: (value, value) for name, value in expected.items()}
    other = await limits(config_of(command, USER, "[limits]\nopen_files = 64\nprocesses = 60"))
    assert other["Max open files"] == ("64", "64")
    assert other["Max core file size"] == ("0", "0")
    if IS_ROOT:
        assert other["Max processes"] == ("60", "60")


async def test_no_limit_is_above_what_the_runtime_has_itself() -> None:
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, own[1]), own[1]))
    try:
        asked = config_of(["/bin/cat", "/proc/self/limits"], "rlimits = { nofile = 1048576 }")
        assert (await limits(asked))["Max open files"][1] == str(min(own[1], 1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)


async def test_the_kernel_takes_customer_processes_before_the_runtime_when_memory_ends() -> None:
    assert (await output(config_of(["/bin/cat", "/proc/self/oom_score_adj"], USER)))[0] == ["500"]
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 500


async def test_without_a_control_group_resource_limits_stand_in() -> None:
    keys = f'{USER}\nmemory = "64MiB"\npids = 40\nrlimits = {{ data = "1GiB", nproc = 9000 }}'
    got = await limits(config_of(["/bin/cat", "/proc/self/limits"], keys))
    assert got["Max data size"] == (str(64 << 20), str(64 << 20))
    if IS_ROOT:
        assert got["Max processes"] == ("40", "40")


async def test_a_process_that_cannot_be_made_as_asked_is_not_made_at_all() -> None:
    with pytest.raises(SpawnFailed, match=r"/no/such/folder|No such file"):
        await start(config_of(["/bin/true"], 'workdir = "/no/such/folder"'))


PROGRAM = """
import ctypes, os, resource
from runtime.enclave.process.isolation import Isolation
libc = ctypes.CDLL(None, use_errno=True)
Isolation(uid=0, gid=0, root=None, directory="/", limits=(), is_privileged=True, filter=b"").give_up_privileges()
print(libc.prctl(27, 0, 0, 0, 0), libc.prctl(28, 0, 0, 0, 0), libc.prctl(47, 2, 0, 0, 0), libc.prctl(8, 1, 0, 0, 0))
"""


def test_secure_bits_are_locked() -> None:
    """NOROOT, NO_CAP_AMBIENT_RAISE and every lock; they, ambient and kept capabilities can be changed no more."""
    if not IS_ROOT:
        assert ctypes.CDLL(None).prctl(28, 0b11101011, 0, 0, 0) == -1, "only root can lock them"
        return
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(0b11101011), "-1", "-1", "-1"]


def test_a_runtime_without_root_gives_up_what_it_can() -> None:
    """Its processes keep its user and its root, and get everything else."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        if IS_ROOT:
            os.setgroups([])
            os.setresgid(54321, 54321, 54321)
            os.setresuid(54321, 54321, 54321)

        async def say() -> None:
            keys = f'{USER}\ngroups = [2000]\numask = "0077"\nrlimits = {{ nofile = 77 }}'
            lines, _ = await output(config_of(["/bin/cat", "/proc/self/status", "/proc/self/limits"], keys))
            os.write(write, "\n".join(lines).encode())

        trio.run(say)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    assert os.waitpid(child, 0)[1] == 0
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in said.splitlines())}
    uid = "54321" if IS_ROOT else str(UID)
    assert fields["Uid"] == [uid] * 4
    assert (fields["NoNewPrivs"], fields["Umask"], fields["SigIgn"]) == (["1"], ["0077"], ["0" * 16])
    assert fields["CapEff"] == ["0" * 16]
    (nofile,) = (line.split() for line in said.splitlines() if line.startswith("Max open files"))
    assert nofile[3:5] == ["77", "77"]
