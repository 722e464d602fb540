"""`enclave simulate` as a person runs it: once through every step, with files that are wrong, with files of their own."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from runtime.provisioner.store import Store
from runtime.simulator.layout import Layout
from runtime.simulator.steps import EXPECTED
from tests.scenarios.leaks import find_leaks
from tests.scenarios.machines import free_port
from tests.scenarios.programs import ROOT, alone_on, enclave, is_alive, processes_of, serving

EXAMPLE = ROOT / "config" / "enclave.toml"


def secrets_of(layout: Layout, enclave_id: str) -> dict[str, bytes]:
    store = Store(layout.provisioner / "store.db")
    try:
        record = store.record(enclave_id)
    finally:
        store.close()
    assert record is not None
    return {name: secret.value.reveal() for name, secret in record.secrets.items()}


def test_once_takes_every_step_in_order_and_shows_no_secret_anywhere(tmp_path: Path) -> None:
    with alone_on(EXAMPLE):
        finished = enclave("simulate", "--once", "--json", "--dir", tmp_path / "state")
    assert (finished.returncode, finished.stderr) == (0, "")
    steps = [json.loads(line) for line in finished.stdout.splitlines()]
    names = [step["step"] for step in steps]
    assert [name for name in names if name in EXPECTED] == list(EXPECTED)
    assert [step["seconds"] for step in steps] == sorted(step["seconds"] for step in steps)
    assert all(step["who"] and step["text"] for step in steps)

    layout = Layout(tmp_path / "state")
    values = secrets_of(layout, "example")
    assert set(values) == {"GREETING_KEY"}
    digest = sha256(values["GREETING_KEY"]).hexdigest()[:16]
    page = f"Hello from inside.\npath: /\nforwarded for: 127.0.0.1\ngreeting key: {digest}\n"
    answered = next(step for step in steps if step["step"] == "client.answered")
    assert (answered["status"], answered["body_sha256"]) == (200, sha256(page.encode()).hexdigest())

    kept = [path for path in layout.base.rglob("*") if path.is_file() and not path.is_relative_to(layout.provisioner)]
    assert {path.name for path in kept} >= {"events.jsonl", "enclave.log", "parent.log", "enclave.toml", "ca.pem"}
    assert find_leaks([finished.stdout.encode(), *(path.read_bytes() for path in kept)], values) == []
    assert find_leaks([(layout.provisioner / "store.db").read_bytes()], values) == ["GREETING_KEY"], (
        "the search finds it where it is"
    )


def test_once_leaves_no_process_and_no_socket_and_can_be_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for _ in range(2):
        with alone_on(EXAMPLE):
            finished = enclave("simulate", "--once", "--dir", folder)
        assert finished.returncode == 0
        assert finished.stdout.rstrip().splitlines()[-1] == "Every step held."
        assert not is_alive(int((folder / "enclave.pid").read_text()))
        assert processes_of(folder) == []
        assert [path for path in folder.rglob("*") if path.is_socket()] == []
        assert not (folder / "ready.json").exists()


WRONG = {
    "an unknown key": (
        b'# one\n# two\nversion = 1\n[enclave]\nid = "x"\n[[process]]\nname = "app"\ncomand = ["/bin/true"]\n',
        'enclave.toml:8: process[0].comand: is not a known key (did you mean "command"?)',
    ),
    "no TOML": (
        b'version = 1\n[enclave\nid = "x"\n',
        "enclave.toml:2: not valid TOML: expected ']' at the end of a table declaration",
    ),
    "no UTF-8": (b'version = 1\n[enclave]\nid = "\xff"\n', "enclave.toml:3: is not UTF-8 text"),
    "a provisioner that is no table": (
        b'version = 1\nprovisioner = 5\n[enclave]\nid = "x"\n[[process]]\nname = "app"\n',
        "enclave.toml:2: provisioner: must be a table, not an integer",
    ),
    "names that are no array": (
        b'version = 1\n[enclave]\nid = "x"\n[[process]]\nname = "app"\n[tls]\nnames = 7\n',
        "enclave.toml:7: tls.names: must be an array, not an integer",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_is_wrong_gives_its_line_and_the_rule(tmp_path: Path, what: str) -> None:
    raw, message = WRONG[what]
    config = tmp_path / "enclave.toml"
    config.write_bytes(raw)
    finished = enclave("simulate", config, "--once", "--dir", tmp_path / "state")
    assert (finished.returncode, finished.stderr) == (1, f"enclave simulate: {message}\n")
    assert processes_of(tmp_path) == []


def test_a_file_that_is_not_there_gives_its_name(tmp_path: Path) -> None:
    finished = enclave("simulate", tmp_path / "none.toml", "--once", "--dir", tmp_path / "state")
    assert (finished.returncode, finished.stderr) == (1, f"enclave simulate: {tmp_path / 'none.toml'}: No such file or directory\n")


@pytest.mark.parametrize(
    ("command", "reason", "said"),
    [
        ("/no/such/command", "command_missing", "/no/such/command: No such file or directory"),
        ("no-such-command", "command_missing", "no-such-command: No such file or directory"),
        ("/etc/passwd", "command_not_executable", "/etc/passwd: Permission denied"),
        ("/bin/false", "process_failed", "process app ended with 1"),
    ],
)
def test_a_command_that_cannot_be_run_is_named_with_its_reason(tmp_path: Path, command: str, reason: str, said: str) -> None:
    config = tmp_path / "enclave.toml"
    config.write_text(
        f'version = 1\n[enclave]\nid = "x"\n[[process]]\nname = "app"\ncommand = ["{command}"]\nrestart = "never"\n'
        f'ready = {{ tcp = "127.0.0.1:1" }}\n[attestation]\nlisten = "tcp:127.0.0.1:{free_port()}"\n'
    )
    finished = enclave("simulate", config, "--once", "--dir", tmp_path / "state")
    assert finished.returncode == 1
    first, *rest = finished.stderr.splitlines()
    assert first == f"enclave simulate: the enclave did not become ready; last state: failed {reason}"
    assert any(said in line and f"[{reason}]" in line for line in rest)
    assert "Traceback" not in finished.stderr
    assert processes_of(tmp_path) == []


ECHO = """
import os, socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("after", os.path.basename(os.environ["FIRST"]), flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data.upper())
"""
FIRST = """
import time, socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("first is up", flush=True)
    while True:
        server.accept()[0].close()
"""


def write_echo(folder: Path) -> Path:
    """A toml of a person's own: bytes in and out over TLS, and a process that must come first."""
    first, echo, api = free_port(), free_port(), free_port()
    (folder / "echo.py").write_text(ECHO)
    (folder / "first.py").write_text(FIRST)
    config = folder / "echo.toml"
    config.write_text(f"""
version = 1

[enclave]
id = "echo"

[[process]]
name = "echo"
command = ["python3", "echo.py", "{echo}"]
user = "1000:1000"
after = ["first"]
env = {{ FIRST = "first" }}
ready = {{ tcp = "127.0.0.1:{echo}", interval = "100ms" }}

[[process]]
name = "first"
command = ["python3", "first.py", "{first}"]
user = "1001:1001"
ready = {{ tcp = "127.0.0.1:{first}", interval = "100ms" }}

[ingress]
mode = "tcp"
upstream = "tcp:127.0.0.1:{echo}"
workers = 1

[attestation]
listen = "tcp:127.0.0.1:{api}"
""")
    return config


def echoed(url: str, ca: str, name: str, data: bytes) -> bytes:
    """What a client gets back over TLS, judged by the CA alone, for this name."""
    host, _, port = url.removeprefix("https://").partition(":")
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection((host, int(port)), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        tls.sendall(data)
        answer = b""
        while len(answer) < len(data):
            answer += tls.recv(4096)
        return answer


def test_once_that_is_stopped_half_way_has_not_held(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runtime.cli", "simulate", "--once", "--dir", str(tmp_path / "state")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 1
    assert "stopped before every step held" in said
    assert "Traceback" not in said
    assert processes_of(tmp_path) == []


def test_a_toml_of_ones_own_serves_tcp_under_another_name_until_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with serving(write_echo(tmp_path), tmp_path / "state", "--name", "echo.test") as served:
        assert echoed(served.ready["url"], served.ready["ca"], "echo.test", b"hello, enclave") == b"HELLO, ENCLAVE"
        with pytest.raises(ssl.SSLCertVerificationError):
            echoed(served.ready["url"], served.ready["ca"], "other.test", b"")
        said = "".join(served.said)
        assert said.index("first is up") < said.index("customer process 'first' is ready") < said.index("process 'echo' started")
        assert said.index("process 'echo' started") < said.index("after first") < said.index("customer process 'echo' is ready")
        pids = served.ready["pids"]
        assert set(pids) == {"enclave", "parent", "provisioner"}
        assert all(is_alive(pid) for pid in pids.values())
        assert processes_of(served.layout.base)
        sockets = [path for path in served.layout.sockets.iterdir() if path.is_socket()]
        assert sockets
        assert served.interrupt() == 0
        assert not any(is_alive(pid) for pid in pids.values())
        assert processes_of(tmp_path) == []
        assert not any(path.exists() for path in sockets)
        assert not served.layout.ready.exists()


def test_a_program_of_the_simulation_that_dies_ends_it_with_a_reason(tmp_path: Path) -> None:
    with serving(write_echo(tmp_path), tmp_path / "state") as served:
        provisioner = served.ready["pids"]["provisioner"]
        os.kill(provisioner, signal.SIGKILL)
        assert served.process.stdout is not None
        rest = served.process.stdout.read()
        assert served.process.wait(30) == 1
        assert "enclave simulate: the provisioner ended with -9" in rest
    assert processes_of(tmp_path) == []
