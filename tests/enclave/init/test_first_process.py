"""The first steps for real, as PID 1 before anything is mounted: what is there afterwards, and for whom."""

import signal
from pathlib import Path

import pytest

from tests.enclave.init.machines import COMMON, CUSTOMERS, LOOK, Content, Echo, Ended, namespaces_are_forbidden

BOOT = (
    LOOK
    + """
before = {"proc": os.path.exists("/proc/self"), "pid": os.getpid(), "words": [sys.argv[1:], os.environ["LEFT"]]}
from runtime.enclave.init.early import begin
early = begin(connect)
assert "trio" not in sys.modules
from runtime.enclave.platform import NitroMachine
machine = NitroMachine(early)
report = machine.prepare()
again = NitroMachine(type(early)(is_kernels_init=False, report=type(report)())).prepare()
machine.set_name("payments-prod")
print(json.dumps({
    "before": before,
    "first": early.is_kernels_init,
    "early": told(early.report),
    "report": told(report),
    "again": told(again),
    "mounts": mounts(),
    "percent": {path: percent_of_memory(path) for path, mount in mounts().items() if mount[0] == "tmpfs"},
    "words": [sys.argv[1:], dict(os.environ)],
    "name": socket.gethostname(),
    "limits": [resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)],
    "dev": sorted(os.listdir("/rootfs/dev")),
    "node": os.path.exists("/dev/nsm") and stat.S_IMODE(os.stat("/dev/nsm").st_mode),
}), flush=True)
machine.end()
"""
)
OWN = ("sys", "pts", "shm", "run", "tmp", "cgroup")
STRICT = {"nosuid", "nodev", "noexec"}


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, list[bytes]] | None:
    """One machine that brings everything, and is prepared twice; None where namespaces are forbidden."""
    folder = tmp_path_factory.mktemp("first")
    if namespaces_are_forbidden(folder):
        return None
    content = Content(folder)
    content.write("init", "#!")
    content.write("modules/nsm.ko", "no module at all")
    content.write("rootfs/run/brought/file", "kept")
    content.complete()
    with Echo(content) as parent:
        ended = content.start(BOOT)
    return ended, parent.heard


def test_it_finds_out_that_it_is_the_kernels_own(booted: tuple[Ended, list[bytes]] | None) -> None:
    if booted is None:
        return
    ended, heard = booted
    assert ended.found["before"] == {"proc": False, "pid": 1, "words": [["nomodules", "quiet"], "over"]}
    assert ended.found["first"]
    assert heard == [b"\xb7"], "one heartbeat in a boot"


def test_every_step_is_taken_and_a_module_that_is_none_ends_no_boot(booted: tuple[Ended, list[bytes]] | None) -> None:
    if booted is None:
        return
    found = booted[0].found
    assert found["report"]["taken"] == ["proc", "dev", "heartbeat", "ramdisk", *OWN, *CUSTOMERS, *COMMON]
    assert found["report"]["left"] == ["console", "device", "subreaper"], "open already; none there; PID 1 needs none"
    (failure,) = found["report"]["failures"]
    assert failure[:2] == ["modules", "module_refused"]
    assert failure[2] in {"ENOEXEC", "EPERM", "ENOSYS"}
    assert "[module_refused]" in booted[0].console


def test_a_second_time_all_is_left_as_it_is(booted: tuple[Ended, list[bytes]] | None) -> None:
    if booted is None:
        return
    again = booted[0].found["again"]
    assert again["failures"] == []
    assert set(again["left"]) == {*OWN, *CUSTOMERS, "device", "loopback", "low_ports", "subreaper"}
    assert again["taken"] == ["loopback_ipv6", "limits"]


MOUNTED = {
    "/proc": ("proc", STRICT),
    "/sys": ("sysfs", STRICT),
    "/dev": ("devtmpfs", {"nosuid", "noexec"}),
    "/dev/pts": ("devpts", {"nosuid", "noexec"}),
    "/dev/shm": ("tmpfs", STRICT),
    "/run": ("tmpfs", STRICT),
    "/tmp": ("tmpfs", STRICT),
    "/sys/fs/cgroup": ("cgroup2", STRICT),
    "/rootfs": ("tmpfs", {"nosuid", "nodev"}),
    "/rootfs/proc": ("proc", STRICT),
    "/rootfs/proc/sys": ("proc", {*STRICT, "ro"}),
    "/rootfs/sys": ("sysfs", {*STRICT, "ro"}),
    "/rootfs/dev": ("tmpfs", {"nosuid", "noexec"}),
    "/rootfs/dev/pts": ("devpts", {"nosuid", "noexec"}),
    "/rootfs/dev/shm": ("tmpfs", STRICT),
    "/rootfs/run": ("tmpfs", {"nosuid", "nodev"}),
    "/rootfs/tmp": ("tmpfs", {"nosuid", "nodev"}),
}


def test_everything_is_mounted_with_no_more_rights_than_it_needs(booted: tuple[Ended, list[bytes]] | None) -> None:
    if booted is None:
        return
    mounts = booted[0].found["mounts"]
    tight = {"nosuid", "nodev", "noexec", "ro"}
    assert {path: (mounts[path][0], tight & set(mounts[path][1])) for path in MOUNTED} == MOUNTED


BOUNDED = {"/run": 5, "/tmp": 5, "/dev/shm": 5, "/rootfs/tmp": 40, "/rootfs/dev/shm": 25, "/rootfs/dev": 0}


def test_no_file_system_in_memory_nor_all_of_them_can_take_the_whole_of_it(booted: tuple[Ended, list[bytes]] | None) -> None:
    if booted is None:
        return
    percent = booted[0].found["percent"]
    assert {path: percent[path] for path in BOUNDED} == BOUNDED
    assert sum(BOUNDED.values()) + 10 <= 90, "with /run, which this image has brought"


def test_words_of_the_kernels_command_line_are_gone_and_limits_and_name_are_set(booted: tuple[Ended, list[bytes]] | None) -> None:
    if booted is None:
        return
    found = booted[0].found
    assert found["words"] == [[], {}]
    assert found["name"] == "payments-prod"
    files, core = found["limits"]
    assert files[0] == files[1]
    assert core == [0, 0]


def test_the_machine_ends_by_a_restart(booted: tuple[Ended, list[bytes]] | None) -> None:
    """Of which a pid namespace makes SIGHUP to its first process; a power off would be SIGINT (reboot(2))."""
    if booted is not None:
        assert booted[0].code == -signal.SIGHUP


CUSTOMER = (
    LOOK
    + """
import errno
from runtime.enclave.init.early import begin
from runtime.enclave.platform import NitroMachine

os.mknod("/rootfs/brought", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
os.mkdir("/rootfs/dev")
os.mknod("/rootfs/dev/nsm", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
with open("/rootfs/brought", "wb"):
    pass
report = NitroMachine(begin(connect)).prepare()


def error_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


if os.fork() == 0:
    os.chroot("/rootfs")
    os.chdir("/")
    as_root = [error_of(open, f"/proc/sys/kernel/{name}", "r+") for name in ("core_pattern", "hostname")]
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    for name in ("null", "zero", "full", "random", "urandom"):
        open(f"/dev/{name}", "rb").close()
    open("/tmp/mine", "w").close()
    open("/dev/shm/mine", "w").close()
    main, side = os.openpty()
    print(json.dumps({
        "dev": sorted(os.listdir("/dev")),
        "brought": error_of(open, "/brought"),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()] == [str(os.getpid())],
        "as_root": as_root,
        "sys": error_of(open, "/sys/kernel/uevent_seqnum", "w"),
        "run": [error_of(open, "/run/mine", "w"), open("/run/brought/file").read()],
        "terminal": os.ttyname(side).startswith("/dev/pts/"),
        "descriptors": os.readlink("/dev/fd"),
        "seen": sorted(name for name in os.listdir("/")),
    }), flush=True)
    os._exit(0)
os.wait()
"""
)


def test_a_customers_process_finds_no_security_module_no_device_of_its_images_and_nobody_elses_process(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.write("rootfs/run/brought/file", "kept")
    content.complete()
    with Echo(content):
        ended = content.start(CUSTOMER)
    assert (ended.code, ended.console) == (0, "")
    assert ended.found == {
        "dev": ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"],
        "brought": "EACCES",
        "processes": True,
        "as_root": ["EROFS", "EROFS"],
        "sys": "EROFS",
        "run": ["EACCES", "kept"],
        "terminal": True,
        "descriptors": "/proc/self/fd",
        "seen": [".enclave-complete", "brought", "dev", "proc", "run", "sys", "tmp"],
    }
