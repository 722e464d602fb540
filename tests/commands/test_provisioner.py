"""`enclave provisioner`: keys made once, mistakes said in a line, and a server that listens until it is told to end."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.provisioner.keys import load_keys
from tests.commands.provisioner_folder import CONFIG, Folder


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    folder = Folder(tmp_path, capsys)
    (folder.path / "state").rmdir()
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_init_makes_the_keys_and_says_which_one_to_pin(folder: Folder) -> None:
    ran = folder.run("provisioner", folder.config, "--init")
    state = folder.path / "state"
    assert ran.status == 0
    pinned = (state / "root.pub").read_text().strip()
    assert ran.out == f"keys made in {state}; pin this in enclave.toml: {pinned}\n"
    assert "move it off this machine" in ran.err
    assert load_keys(state).server.names == ("localhost",)


@pytest.mark.parametrize("moved_away", [(), ("root.key",), ("root.key", "server-ca.key")], ids=repr)
def test_init_twice_changes_nothing_also_where_root_key_was_moved_away(folder: Folder, moved_away: tuple[str, ...]) -> None:
    folder.run("provisioner", folder.config, "--init")
    state = folder.path / "state"
    for name in moved_away:
        (state / name).unlink()
    before = contents(state)
    ran = folder.run("provisioner", folder.config, "--init")
    assert (ran.status, ran.out) == (1, "")
    assert re.fullmatch(rf"enclave provisioner: {state}/[a-z.-]+ is there already; nothing was changed\n", ran.err)
    assert contents(state) == before


def test_a_statement_is_renewed_where_the_root_key_is(folder: Folder) -> None:
    folder.run("provisioner", folder.config, "--init")
    state = folder.path / "state"
    before = contents(state)
    ran = folder.run("provisioner", folder.config, "--renew-statement")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"{state}/release.statement: valid for 90 days")
    after = contents(state)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} <= {"release.statement"}
    (state / "root.key").unlink()
    assert "root.key" in folder.run("provisioner", folder.config, "--renew-statement").refusal


def test_without_keys_it_says_how_to_make_them(folder: Folder) -> None:
    refused = folder.run("provisioner", folder.config).refusal
    assert "release.key" in refused
    assert f"`enclave provisioner {folder.config} --init` makes what is missing" in refused


MISTAKES = {
    "an unknown key": (CONFIG.replace("listen", "lissen"), ":5: lissen: is not a known key"),
    "another version": (CONFIG.replace("version = 1", "version = 2"), ":1: version: must be from 1 to 1"),
    "no roots": (CONFIG.replace('["aws"]', "[]"), ":4: roots: "),
    "an id that is empty": (CONFIG.replace("provisioner-1", ""), ":2: id: "),
    "a challenge that lives too long": (CONFIG + 'challenge_lifetime = "61s"\n', ":7: challenge_lifetime: must be from "),
    "a ticket that lives no time": (CONFIG + 'ticket_lifetime = "1s"\n', ":7: ticket_lifetime: must be from "),
    "no TOML": ("version = ", ":1: "),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_in_the_config_is_one_line_with_its_place(folder: Folder, text: str, said: str) -> None:
    config = folder.write("provisioner.toml", text.encode())
    refused = folder.run("provisioner", config).refusal
    assert refused.startswith(f"enclave provisioner: {config}{said}")


def test_a_root_that_cannot_be_read_is_one_line(folder: Folder) -> None:
    folder.run("provisioner", folder.config, "--init")
    for root, said in (("absent.pem", "No such file"), (folder.secret, "no PEM certificate")):
        config = folder.write("provisioner.toml", CONFIG.replace('"aws"', json.dumps(root)).encode())
        assert said in folder.run("provisioner", config).refusal


def test_no_config_is_one_line(folder: Folder) -> None:
    assert "absent.toml" in folder.run("provisioner", str(folder.path / "absent.toml")).refusal
    assert folder.run("provisioner").status == 2


def test_a_database_that_is_none_is_one_line(folder: Folder) -> None:
    folder.run("provisioner", folder.config, "--init")
    folder.write("state/store.db", b"this is no database, and it is long enough to be seen as none" * 20)
    ran = folder.run("provisioner", folder.config)
    assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith(f"enclave provisioner: {folder.path}/state/store.db: ")


def test_a_port_that_is_taken_is_one_line(folder: Folder) -> None:
    folder.run("provisioner", folder.config, "--init")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = folder.write("provisioner.toml", CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}").encode())
        ran = folder.run("provisioner", config)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == f"enclave provisioner: tcp:127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_by_a_signal(folder: Folder, number: signal.Signals) -> None:
    folder.run("provisioner", folder.config, "--init")
    command = [sys.executable, "-m", "runtime.cli", "provisioner", folder.config, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["event"] == "listening"
        host, _, port = said["at"].removeprefix("tcp:").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10):
            pass
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
