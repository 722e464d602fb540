"""parent.toml, and `enclave parent`'s answers to what is wrong with it."""

import argparse
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from runtime.commands.parent import add_parser
from runtime.net.endpoint import Tcp, Unix, Vsock
from runtime.parent.config import ParentConfig, ProvisionerUrl, read_config
from runtime.settings import SettingsError, load

EXAMPLE = Path(__file__).parents[2] / "config" / "parent.toml"
LEAST = """
version = 1
instance_id = "i-0"
[enclave]
id = "app"
ingress = "vsock:16:443"
[listen]
public = "tcp:127.0.0.1:0"
"""


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["parent", *arguments])
    status: int = parsed.handler(parsed)
    return status


def test_the_example_is_a_config() -> None:
    config = read_config(EXAMPLE)
    assert config.enclave.ingress == Vsock(16, 8443)
    assert config.listen.public == Tcp("0.0.0.0", 443)
    assert config.provisioner is not None
    assert config.provisioner.url == ProvisionerUrl("provisioner.example.com", 7443)
    assert config.provisioner.ca == EXAMPLE.parent / "provisioner-ca.pem"
    assert config.egress.allow == (ip_network("10.1.0.0/16"),)


def test_what_the_example_says_of_limits_and_rules_is_the_default() -> None:
    example, least = read_config(EXAMPLE), load(ParentConfig, LEAST, "least.toml")
    assert example.limits == least.limits
    assert example.output == least.output
    assert (least.egress.allow, example.egress.allow) == ((), (ip_network("10.1.0.0/16"),))
    assert replace(example.egress, allow=()) == least.egress
    assert (least.listen.control, least.listen.egress) == (example.listen.control, example.listen.egress)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LEAST.replace("version = 1", "version = 2"), "version"),
        (LEAST.replace("i-0", "i 0"), "instance_id"),
        (LEAST.replace("vsock:16:443", "16:443"), "enclave.ingress"),
        (LEAST + 'pubic = "tcp:a:1"', "listen.pubic"),
        (LEAST + '[egress]\nallow = ["10.1.0.1/16"]', "egress.allow[0]"),
        (LEAST + "[egress]\nallow_private = 1", "egress.allow_private"),
        (LEAST + '[egress]\ndeny = ["10.1.0.1/16"]', "egress.deny[0]"),
        (LEAST + '[egress]\nresolvers = ["dns.example"]', "egress.resolvers[0]"),
        (LEAST + "[egress]\nresolvers = [" + '"10.0.0.2",' * 9 + "]", "egress.resolvers"),
        (LEAST + '[limits]\nconnect = "10"', "limits.connect"),
        (LEAST + "[limits]\negress_connections = 0", "limits.egress_connections"),
        (LEAST + '[host_parameters]\nregion = "a\\nb"', "host_parameters.region"),
        (LEAST + "[host_parameters]\n" + "\n".join(f'n{number} = ""' for number in range(33)), "host_parameters"),
        (LEAST + '[provisioner]\nurl = "http://a"\nca = "a"\ncertificate = "b"\nkey = "c"', "provisioner.url"),
        (LEAST + '[provisioner]\nurl = "https://a/path"\nca = "a"\ncertificate = "b"\nkey = "c"', "provisioner.url"),
        (LEAST + '[provisioner]\nurl = "https://a:99999"\nca = "a"\ncertificate = "b"\nkey = "c"', "provisioner.url"),
        (LEAST + '[provisioner]\nurl = "https://a"\nca = "a"\ncertificate = "b"', "provisioner.key"),
    ],
)
def test_a_mistake_is_named_by_its_key(text: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(ParentConfig, text, "parent.toml")
    assert [problem.key for problem in caught.value.problems] == [key]


def test_a_url_has_a_default_port_and_a_host_header() -> None:
    assert ProvisionerUrl.parse("https://a.example").authority == "a.example:443"
    assert ProvisionerUrl.parse("https://[::1]:7443/").authority == "[::1]:7443"


def test_a_missing_or_wrong_file_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none.toml")) == 2
    assert "No such file" in capsys.readouterr().err
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("version = 1\nsurprise = 2\n")
    assert run(str(wrong)) == 2
    assert "surprise" in capsys.readouterr().err


@pytest.mark.parametrize(
    "rest",
    [
        '[provisioner]\nurl = "https://a"\nca = "none.pem"\ncertificate = "none.pem"\nkey = "none.pem"',
        '[provisioner]\nurl = "https://a"\nca = "config.toml"\ncertificate = "config.toml"\nkey = "config.toml"',
        '[output]\nevents = "no/such/folder"',
    ],
)
def test_what_cannot_be_started_is_one_line_and_status_1(rest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(LEAST + rest)
    assert run(str(config)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("enclave parent: ")
    assert str(tmp_path) in line


def test_an_endpoint_that_cannot_be_had_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    endpoint = Unix(str(tmp_path / "missing" / "socket"))
    config.write_text(LEAST.replace("tcp:127.0.0.1:0", str(endpoint)))
    assert run(str(config)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert str(endpoint) in line
