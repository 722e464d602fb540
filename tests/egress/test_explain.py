"""`enclave egress explain`, as a person and a script use it; and that the page names every reason there is."""

import json
from pathlib import Path
from typing import get_args

import pytest

from runtime.cli import main
from runtime.enclave.traffic import egress_policy, egress_road, resolver, sni_gate
from runtime.protocol import client_hello, dns
from tests.egress.policies import REST, RULES
from tests.support.pages import quoted, section


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "enclave.toml"
    path.write_text(REST + RULES)
    return str(path)


ASKED = (
    ("api.example.com:443", 0, "allowed", 0),
    ("API.example.com.:443", 0, "allowed", 0),
    ("bücher.example:443", 0, "allowed", 6),
    ("api.example.com:80", 1, "port_not_allowed", 0),
    ("evil.test:443", 1, "name_not_allowed", None),
    ("api.example.com:0", 1, "port_out_of_range", None),
    ("10.1.2.3:5432", 0, "allowed", 4),
    ("[2001:db8:1::1]:443", 0, "allowed", 5),
    ("2001:db8:1::1", 0, "allowed", 5),
    ("::ffff:10.1.2.3", 1, "address_embeds_ipv4", None),
    ("0x0a010203:5432", 1, "address_spelling", None),
    ("a_b.example.org:443", 1, "not_a_name", None),
    ("www.example.org", 0, "allowed", 1),
    ("db.example.net", 0, "allowed", 3),
    ("example.org", 1, "name_not_allowed", None),
)


@pytest.mark.parametrize(("asked", "status", "reason", "rule"), ASKED, ids=range(len(ASKED)))
def test_the_outcome_names_reason_and_rule(
    asked: str, status: int, reason: str, rule: int | None, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["egress", "explain", asked, "-c", config, "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert (found["allowed"], found["reason"], found["rule"]) == (status == 0, reason, rule)
    assert main(["egress", "explain", asked, "-c", config]) == status
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("ALLOWED" if status == 0 else "DENIED")
    assert f"{reason}: " in printed.out
    assert rule is None or f"egress.allow[{rule}]: " in printed.out


def test_an_address_is_reached_through_the_proxy_or_not_at_all(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["egress", "explain", "10.1.2.3:5432", "-c", config])
    assert "egress.proxy is not set" in capsys.readouterr().out
    with_proxy = tmp_path / "proxy.toml"
    with_proxy.write_text(REST + RULES + 'proxy = "tcp:127.0.0.1:3128"\n')
    main(["egress", "explain", "10.1.2.3:5432", "-c", str(with_proxy)])
    assert "the proxy at tcp:127.0.0.1:3128" in capsys.readouterr().out
    main(["egress", "explain", "api.example.com:443", "-c", str(with_proxy)])
    assert "proxy" not in capsys.readouterr().out


def test_what_must_be_spoken_is_said(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, said in (
        ("api.example.com:443", "TLS that asks for api.example.com"),
        ("api.example.com:8443", "anything"),
        ("apex.example:443", "TLS that asks for apex.example, or whose name is missing"),
        ("[2001:db8:1::1]:443", "TLS"),
    ):
        assert main(["egress", "explain", asked, "-c", config]) == 0
        assert f"first bytes  {said}\n" in capsys.readouterr().out


def test_without_a_port_every_rule_with_the_host_is_shown(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", "explain", "api.example.com", "-c", config, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["rule"], each["ports"]) for each in found["rules"]] == [(0, [443, 8443]), (9, [9000])]
    assert found["port"] is None


def test_what_the_parent_refuses_by_itself_is_said(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, kind in (("10.1.2.3:5432", "private"), ("169.254.169.254:80", "metadata"), ("127.0.0.1:80", "loopback")):
        main(["egress", "explain", asked, "-c", config])
        assert f"refuses it as {kind}, " in capsys.readouterr().out
    main(["egress", "explain", "1.1.1.1:443", "-c", config])
    assert "parent" not in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["", ":443"])
def test_no_name_is_denied(asked: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", "explain", asked, "-c", config]) == 1
    assert "not_a_name" in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["a:b", "a:443:1", "[::1", "https://api.example.com", "a:1234567890", "ＡＢ.example:443"])  # noqa: RUF001 look-alikes on purpose
def test_a_question_that_is_none_is_a_mistake_of_usage(asked: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egress", "explain", asked, "-c", config]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("enclave egress explain: ")
    assert printed.err.count("\n") == 1


def test_a_file_that_is_refused_is_a_mistake_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.toml").write_text(REST + "[egress]\nalow = []\n")
    for name, said in (("wrong.toml", 'egress.alow: is not a known key (did you mean "allow"?)'), ("none.toml", "No such file")):
        assert main(["egress", "explain", "a.example", "-c", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err


def test_the_page_names_every_reason() -> None:
    readme = Path(__file__).parents[2] / "runtime" / "enclave" / "README.md"
    page = section(readme, "## Egress") + section(readme, "### The explicit proxy")
    reasons = {
        *get_args(egress_policy.DecisionReason),
        *get_args(sni_gate.GateReason),
        *(value for part in get_args(egress_road.ProxyFault) for value in (get_args(part) or (part,))),
        *client_hello.HELLO_FAULTS,
        *dns.QUERY_FAULTS,
        *(value for part in get_args(resolver.LookupReason) for value in (get_args(part) or (part,))),
    }
    assert reasons - {word for text in quoted(page) for word in text.split()} == set()
