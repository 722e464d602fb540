"""Starts the machines of new_machine.py for tests, and says what becomes of them where namespaces are forbidden."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from runtime.enclave.init.mounts import customer_mounts
from runtime.enclave.init.steps import take

PROJECT = Path(__file__).parents[3]
SENTINEL = ".enclave-complete"
_SYS_ADMIN = 1 << 21  # capabilities(7)
CUSTOMERS = ("root", "root_proc", "root_sys", "root_dev", "root_pts", "root_shm", "root_run", "root_tmp")
COMMON = ("loopback", "loopback_ipv6", "limits", "low_ports")
LOOK = '''
import json, os, resource, socket, stat, sys
from pathlib import Path


def mounts():
    """Of each mount point: kind, options of the mount, of the file system. The last one mounted there counts."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        separator = fields.index("-")
        found[fields[4]] = [fields[separator + 1], sorted(fields[5].split(",")), sorted(fields[separator + 3].split(","))]
    return found


def percent_of_memory(path):
    """How much of the machine's memory fits in a file system that is one in memory."""
    total = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    found = os.statvfs(path)
    return round(100 * found.f_blocks * found.f_frsize / (1024 * total))


def told(report):
    return {"taken": report.taken, "left": report.left, "failures": [[each.step, each.reason, each.errno] for each in report.failures]}


def connect(seconds):
    """The socket that stands for vsock."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(seconds)
    stream.connect("/shared/heartbeat.sock")
    return stream
'''
"""What every program of a machine begins with."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a machine's first process ended: its status, negative for a signal; what it wrote; its last line, if that is JSON."""

    code: int
    output: str
    console: str

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return found


class Content:
    """What a machine's ramdisks hold, in the test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "content"
        self.root = folder / "root"
        self.shared = folder / "shared"
        for each in (self.folder, self.root, self.shared, self.folder / "rootfs"):
            each.mkdir()
        self.shared.chmod(0o755)

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def complete(self) -> None:
        """Writes both sentinels, as the last entries."""
        self.write(SENTINEL, "2\n")
        self.write(f"rootfs/{SENTINEL}", "1\n")

    def command(self, program: str) -> list[str]:
        """What starts a machine of it, with a program."""
        self.write("program.py", program)
        folders = [str(folder) for folder in (self.root, self.folder, self.shared)]
        return [sys.executable, "-m", "tests.enclave.init.new_machine", *folders, "/program.py", "nomodules", "quiet"]

    def start(self, program: str) -> Ended:
        """Runs a machine to its end. The kernel has left it two words of its command line and one variable."""
        finished = subprocess.run(
            self.command(program), cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        return Ended(code=finished.returncode, output=finished.stdout, console=finished.stderr)


def namespaces_are_forbidden(tmp_path: Path) -> bool:
    """Where they are, asserts what is documented for that case: the customer's root cannot be closed, and that ends a boot.

    In continuous integration they must be allowed, or nothing of this folder's real machines would have been tested.
    """
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    if capabilities & _SYS_ADMIN:
        return False
    assert os.environ.get("CI") != "true", "the tests of the first process need root with CAP_SYS_ADMIN"
    report = take(customer_mounts(tmp_path))
    assert report.fatal is not None
    assert (report.fatal.step, report.fatal.reason, report.fatal.errno) == ("root", "mount_root", "EPERM")
    assert report.taken == ()
    return True


class Echo:
    """The parent's heartbeat port, in a thread: how often it was called, and what it was sent."""

    def __init__(self, content: Content, answer: bytes = b"\xb7") -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(content.shared / "heartbeat.sock"))
        self._listener.listen()
        self._thread = Thread(target=self._serve)

    def __enter__(self) -> "Echo":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            with stream:
                self.heard.append(stream.recv(16))
                stream.sendall(self._answer)
                assert stream.recv(16) == b""
