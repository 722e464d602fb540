"""The first steps where something is not as usual: another init was there before, links in the way, no console, no answer."""

import json
from pathlib import Path

import pytest

from tests.enclave.init.machines import COMMON, CUSTOMERS, LOOK, Content, Echo, namespaces_are_forbidden

CHILD = (
    LOOK
    + """
import ctypes
from runtime.enclave.init import kernel
from runtime.enclave.init.early import begin

# What AWS's init has done when it starts a program: file systems, the module's device for everybody, heartbeat.
for folder in ("proc", "dev", "run", "tmp", "sys"):
    os.makedirs(f"/{folder}", exist_ok=True)
kernel.mount("proc", Path("/proc"), "proc")
kernel.mount("tmpfs", Path("/dev"), "tmpfs")
kernel.mount("tmpfs", Path("/run"), "tmpfs")
kernel.mount("sysfs", Path("/sys"), "sysfs")
for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9), ("nsm", 3)):
    os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    os.chmod(f"/dev/{name}", 0o666)
os.mknod("/dev/tty", 0o666 | stat.S_IFCHR, os.makedev(5, 0))

child = os.fork()
if child == 0:
    os.setsid()
    early = begin(connect)
    from runtime.enclave.platform import NitroMachine
    machine = NitroMachine(early)
    report = machine.prepare()
    subreaper = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper), 0, 0, 0)
    machine.end()
    print(json.dumps({
        "first": early.is_kernels_init,
        "report": told(report),
        "mounts": mounts(),
        "node": stat.S_IMODE(os.stat("/dev/nsm").st_mode),
        "dev": "nsm" in os.listdir("/rootfs/dev"),
        "subreaper": subreaper.value,
    }), flush=True)
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)


def test_as_the_child_of_another_init_it_leaves_what_is_there_and_ends_no_machine(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.write("modules/nsm.ko", "not to be loaded again")
    content.complete()
    with Echo(content) as parent:
        ended = content.start(CHILD)
    assert (ended.code, ended.console) == (7, "")
    assert parent.heard == [], "that init has sent the heartbeat"
    found = ended.found
    assert not found["first"]
    assert found["report"]["failures"] == []
    assert found["report"]["left"] == ["proc", "dev", "console", "sys", "run"]
    assert found["report"]["taken"] == [
        *("ramdisk", "pts", "shm", "tmp", "cgroup", "device"), *CUSTOMERS, *COMMON, "subreaper",
    ]  # fmt: skip
    assert (found["node"], found["dev"], found["subreaper"]) == (0o600, False, 1)
    assert found["mounts"]["/run"][0] == "tmpfs"
    assert "noexec" not in found["mounts"]["/run"][1], "left as that init made it"


LINK = (
    LOOK
    + """
from runtime.enclave.init.early import begin
from runtime.enclave.platform import NitroMachine
os.makedirs("/run/here")
os.symlink("/run/here", "/rootfs/tmp")
os.symlink("/run/here", "/rootfs/proc") if "proc" in open("/which").read() else None
report = NitroMachine(begin(connect)).prepare()
print(json.dumps({"report": told(report), "mounts": sorted(mounts())}))
"""
)


@pytest.mark.parametrize("which", ["tmp", "proc"])
def test_a_link_in_the_customers_root_leads_no_mount_out_of_it(tmp_path: Path, which: str) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.write("which", which)
    content.complete()
    with Echo(content):
        ended = content.start(LINK)
    failures = ended.found["report"]["failures"]
    expected = [f"root_{which}", f"mount_root_{which}", "ELOOP"]
    assert failures == [expected]
    assert "/run/here" not in ended.found["mounts"]
    assert ("loopback" in ended.found["report"]["taken"]) == (which == "tmp"), "without /proc nothing follows"


CLOSED = (
    LOOK
    + """
for number in (0, 1, 2):
    os.close(number)
sys.stdout = sys.stderr = None
from runtime.enclave.init.early import begin
report = begin(connect).report
Path("/shared/found").write_text(json.dumps({
    "report": told(report), "open": [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)], "stderr": sys.stderr is not None
}))
"""
)


def test_without_a_console_descriptors_are_opened_before_the_first_socket(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.complete()
    with Echo(content) as parent:
        content.start(CLOSED)
    found = json.loads((content.shared / "found").read_text())
    assert "console" in found["report"]["taken"]
    assert set(found["open"]) <= {"/dev/console", "/dev/null"}
    assert found["stderr"]
    assert parent.heard == [b"\xb7"]


def test_a_heartbeat_that_nobody_answers_is_soft_and_tried_once(tmp_path: Path) -> None:
    if namespaces_are_forbidden(tmp_path):
        return
    content = Content(tmp_path)
    content.complete()
    with Echo(content, b"\x00") as parent:
        ended = content.start(LOOK + "from runtime.enclave.init.early import begin\nprint(json.dumps(told(begin(connect).report)))")
    assert ended.found["failures"] == [["heartbeat", "heartbeat_wrong", ""]]
    assert "ramdisk" in ended.found["taken"]
    assert len(parent.heard) == 1
