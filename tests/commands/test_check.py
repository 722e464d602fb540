"""`enclave check`: what it prints, and that what it prints means the same."""

import argparse
import json
from hashlib import sha384
from pathlib import Path

import pytest

from runtime.commands import check
from runtime.enclave.config import load_enclave_config
from runtime.toml_text import to_table, to_toml

EXAMPLE = Path(__file__).parents[2] / "config" / "enclave.toml"
WHOLE = EXAMPLE.read_text() + '[log]\nmax_line_size = "4KiB"\n'
ROLES = ("enclave", "parent", "provisioner", "client", "image")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["check", *words])
    status: int = arguments.handler(arguments)
    return status


def written(folder: Path, text: str) -> str:
    path = folder / "enclave.toml"
    path.write_text(text)
    return str(path)


def test_a_right_file_is_printed_with_its_defaults_and_its_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(written(tmp_path, WHOLE)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert sha384(WHOLE.encode()).hexdigest() in printed.out
    assert 'handshake_timeout = "10s"' in printed.out
    assert 'max_line_size = "4KiB"' in printed.out


def test_what_is_printed_loads_to_the_same_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = WHOLE.replace('LOG_LEVEL = "info"', r'A = "a\\nb\n\"\u007f\u0001é😀", "B c" = ""').replace(
        "allow = []", 'allow = [{ cidr = "10.0.0.0/8", ports = [1, 2] }, { name = "a.example", ports = [443] }]'
    )
    assert run(written(tmp_path, text)) == 0
    again = load_enclave_config(capsys.readouterr().out.encode(), "printed")
    first = load_enclave_config(text.encode(), "first")
    assert first.process[0].env == {"A": 'a\\nb\n"\x7f\x01é😀', "B c": ""}
    assert to_table(again) == to_table(first)
    assert to_toml(to_table(again)) == to_toml(to_table(first))


def test_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(written(tmp_path, WHOLE), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["digest"] == sha384(WHOLE.encode()).hexdigest()
    assert printed["config"]["provisioner"]["url"] == "https://provisioner.example.com:7443"
    assert printed["config"]["provisioner"]["ca"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert printed["config"]["process"][0]["user"] == "1000:1000"
    assert printed["config"]["ingress"]["workers"] == "auto"


def test_every_problem_is_a_line_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, WHOLE.replace("epoch = 1", "epok = 1").replace('"http"', '"htp"'))
    assert run(path) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first.startswith(f"{path}:7: enclave.epok: is not a known key (did you mean ")
    line = WHOLE.splitlines().index("[ingress]") + 2
    assert second.startswith(f"{path}:{line}: ingress.mode: must be one of ")


@pytest.mark.parametrize("role", ROLES)
def test_the_example_of_every_role_is_right(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(EXAMPLE.parent / f"{role}.toml"), "--role", role) == 0
    assert capsys.readouterr().err == ""


def test_a_file_of_another_role_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(EXAMPLE), "--role", "client") == 1
    assert "config/enclave.toml" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "absent.toml")) == 1
    assert run(str(tmp_path)) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/absent.toml: No such file or directory",
        f"{tmp_path}: Is a directory",
    ]
