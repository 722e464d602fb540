"""What is judged: the real parent, real ingress workers behind it and a customer's program, each a process of its own on this machine."""

import json
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import IO, Literal

from tests.conformance.launcher import NAME, Kind, Spec
from tests.conformance.tools import ROOT

UPSTREAM = [sys.executable, str(Path(__file__).with_name("upstream.py"))]
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running ingress: its public port, the customer's own port behind it, the file of its authority, and the processes."""

    port: int
    upstream: int
    ca: Path
    parent: int
    launcher: int

    def workers(self) -> list[int]:
        """The ingress workers that run now: forks of the fork server, which was there first."""
        return sorted(pid for pid in _children(self.launcher) if b"runtime.enclave.worker" in _read(pid, "cmdline"))[1:]

    def context(self) -> ssl.SSLContext:
        """For clients that believe this ingress and no other."""
        return ssl.create_default_context(cafile=str(self.ca))

    def client(self, context: ssl.SSLContext | None = None) -> HTTPSConnection:
        """A client, not yet connected."""
        return HTTPSConnection(NAME, self.port, timeout=_TIMEOUT, context=context or self.context())


@contextmanager
def running(
    *,
    key: Kind = "ecdsa",
    mode: Literal["http", "tcp"] = "http",
    workers: int = 1,
    upstream: Sequence[str] = UPSTREAM,
) -> Iterator[Target]:
    """Starts it, and ends every process at the end of the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        log = stack.enter_context((folder / "log").open("w+"))
        application = _start(stack, upstream, log)
        port = int(_line(application.stdout, log))
        inside = f"unix:{folder}/ingress"
        spec = Spec(listen=inside, upstream=f"tcp:127.0.0.1:{port}", key=key, mode=mode, workers=workers)
        launcher = _start(stack, [sys.executable, "-m", "tests.conformance.launcher", spec.encode()], log)
        (folder / "ca.pem").write_text(json.loads(_line(launcher.stdout, log))["ca"])
        (folder / "parent.toml").write_text(_parent_config(folder, inside))
        parent = _start(
            stack, [sys.executable, "-m", "runtime.cli", "parent", str(folder / "parent.toml"), "--json"], log, is_on_stderr=True
        )
        public = _public_port(parent.stderr, log)
        threading.Thread(target=_copy, args=(parent.stderr, log), daemon=True).start()  # what it says later must not fill the pipe
        yield Target(port=public, upstream=port, ca=folder / "ca.pem", parent=parent.pid, launcher=launcher.pid)


def descriptors(pid: int) -> int:
    """How many a process has open, but for pipes, of which it keeps some for who needs one next."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += not str(path.readlink()).startswith("pipe:")
    return count


def memory_kib(pid: int, name: Literal["VmRSS", "VmHWM"]) -> int:
    """What a process holds in memory, or held at most."""
    lines = dict(line.split(":", 1) for line in _read(pid, "status").decode().splitlines())
    return int(lines[name].split()[0])


def _parent_config(folder: Path, inside: str) -> str:
    return f"""
version = 1
instance_id = "i-0123456789abcdef0"
[enclave]
id = "conformance"
ingress = "{inside}"
[listen]
public = "tcp:127.0.0.1:0"
control = "unix:{folder}/control"
egress = "unix:{folder}/egress"
[limits]
ingress_connections = 20000
ingress_connections_per_address = 20000
"""


def _start(stack: ExitStack, command: Sequence[str], log: IO[str], *, is_on_stderr: bool = False) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=log if is_on_stderr else subprocess.PIPE,
        stderr=subprocess.PIPE if is_on_stderr else log,
        text=True,
    )
    stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _line(stream: IO[str] | None, log: IO[str]) -> str:
    assert stream is not None
    line = stream.readline()
    if not line:
        log.seek(0)
        raise RuntimeError(f"it did not start:\n{log.read()[-2000:]}")
    return line


def _public_port(events: IO[str] | None, log: IO[str]) -> int:
    while (event := json.loads(_line(events, log))).get("event") != "ready":
        pass
    return int(event["public"].rpartition(":")[2])


def _copy(source: IO[str] | None, log: IO[str]) -> None:
    assert source is not None
    with suppress(ValueError):  # closed at the end
        for line in source:
            log.write(line)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _children(pid: int) -> list[int]:
    processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [each for each in processes if _read(each, "stat").rpartition(b")")[2].split()[1:2] == [b"%d" % pid]]
