"""`[egress] allow`: what is a rule, and what refuses the file with line, key and what would be right."""

import pytest

from runtime.enclave.config import load_enclave_config
from runtime.settings import SettingsError
from tests.egress.policies import REST, policy

REFUSED = (
    ("{ ports = [443] }", "egress.allow[0]: must have exactly one of name, suffix and cidr"),
    ("{ name = 'a.example', cidr = '10.0.0.0/8', ports = [443] }", "egress.allow[0]: must have exactly one of"),
    ("{ name = 'a.example' }", "egress.allow[0].ports: is missing"),
    ("{ name = 'a.example', port = [443] }", 'egress.allow[0].port: is not a known key (did you mean "ports"?)'),
    ("{ nam = 'a.example', ports = [443] }", 'egress.allow[0].nam: is not a known key (did you mean "name"?)'),
    ("{ name = 'a.example', ports = 443 }", "egress.allow[0].ports: must be an array, not an integer"),
    ("{ name = 'a.example', ports = [] }", "egress.allow[0].ports: must not be empty"),
    ("{ name = 'a.example', ports = [65536] }", "egress.allow[0].ports[0]: must be from 1 to 65535"),
    ("{ name = 'a.example', ports = [-1] }", "egress.allow[0].ports[0]: must be from 1 to 65535"),
    ("{ name = 'a.example', ports = ['443'] }", "egress.allow[0].ports[0]: must be an integer, not a string"),
    ("{ name = 'a.example', ports = ['9-1'] }", "must be a port or a range of ports"),
    ("{ name = 'a.example', ports = ['1-65536'] }", "must be a port or a range of ports"),
    ("{ name = 'a.example', ports = ['0-9'] }", "must be a port or a range of ports"),
    ("{ name = 'a.example', ports = ['1 - 9'] }", "must be a port or a range of ports"),
    ("{ name = 'a.example', ports = ['*'] }", "must be a port or a range of ports"),
    ("{ name = 'a.example', ports = [true] }", "egress.allow[0].ports[0]: must be an integer"),
    ("{ name = 'a.example', ports = [443, 443] }", "egress.allow[0].ports: names 443 more than once"),
    ("{ name = 'a.example', ports = ['440-450', 443] }", "egress.allow[0].ports: names 443 more than once"),
    ("{ name = 'a.example', ports = ['1-257'] }", "egress.allow[0].ports: must name at most 256 ports for a name"),
    (
        "{ name = '*.example.com', ports = [443] }",
        'egress.allow[0].name: must be a name without wildcards: write suffix = "example.com"',
    ),
    ("{ suffix = '.example.com', ports = [443] }", "egress.allow[0].suffix: must be a DNS name"),
    ("{ suffix = '', ports = [443] }", "egress.allow[0].suffix: must be a DNS name"),
    ("{ suffix = '.', ports = [443] }", "egress.allow[0].suffix: must be a DNS name"),
    ("{ name = 'a..example', ports = [443] }", "egress.allow[0].name: must be a DNS name"),
    ("{ name = 'a_b.example', ports = [443] }", "egress.allow[0].name: must be a DNS name"),
    ("{ name = '10.1.2.3', ports = [443] }", "egress.allow[0].name: must be a name; for an address write cidr"),
    ("{ name = '0x7f.1', ports = [443] }", "egress.allow[0].name: must be a name; for an address write cidr"),
    ("{ name = '::1', ports = [443] }", "egress.allow[0].name: must be a name; for an address write cidr"),
    ("{ name = 'localhost', ports = [443] }", "egress.allow[0].name: must be a name outside"),
    ("{ suffix = 'a.localhost', ports = [443] }", "egress.allow[0].suffix: must be a name outside"),
    ("{ name = 'xn--a.example', ports = [443] }", "egress.allow[0].name: must be a DNS name"),
    ('{ name = "a\\u3002example", ports = [443] }', "egress.allow[0].name: must be a DNS name"),
    ('{ name = "\\uff21b.example", ports = [443] }', "egress.allow[0].name: must be a DNS name"),
    ('{ name = "a\\u200db.example", ports = [443] }', "egress.allow[0].name: must be a DNS name"),
    ("{ name = '" + "a" * 64 + ".example', ports = [443] }", "egress.allow[0].name: must be a DNS name"),
    ("{ name = '" + "abc." * 64 + "example', ports = [443] }", "egress.allow[0].name: must be a DNS name"),
    ("{ name = 'ü" + "abc." * 64 + "example', ports = [443] }", "egress.allow[0].name: must be a DNS name"),
    ("{ cidr = '10.1.2.3/16', ports = [443] }", "egress.allow[0].cidr: must be a network"),
    ("{ cidr = 'example.com', ports = [443] }", "egress.allow[0].cidr: must be a network"),
    ("{ cidr = '::ffff:10.0.0.0/104', ports = [443] }", "egress.allow[0].cidr: must be written as an IPv4 network"),
    ("{ cidr = '64:ff9b::/96', ports = [443] }", "egress.allow[0].cidr: must be written as an IPv4 network"),
    ("{ name = 'a.example', apex = true, ports = [443] }", "egress.allow[0].apex: has no meaning without suffix"),
    ("{ name = 'a.example', ports = [443], tls = 'yes' }", "egress.allow[0].tls: must be true or false, not a string"),
    ("{ name = 'a.example', ports = [443], sni = ['none'] }", 'egress.allow[0].sni[0]: must be one of "missing", "encrypted"'),
    ("{ name = 'a.example', ports = [443], sni = ['encryptd'] }", '(did you mean "encrypted"?)'),
    ("{ name = 'a.example', ports = [443], sni = ['missing', 'missing'] }", "egress.allow[0].sni: names missing more than once"),
    ("{ name = 'a.example', ports = [443], tls = false, sni = ['missing'] }", "egress.allow[0].sni: has no meaning"),
    ("{ cidr = '10.0.0.0/8', ports = [443], sni = ['missing'] }", "egress.allow[0].sni: has no meaning"),
)


@pytest.mark.parametrize(("rule", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_rule_that_does_not_parse_refuses_the_file(rule: str, message: str) -> None:
    text = REST + f"[egress]\nallow = [\n  {rule},\n]\n"
    with pytest.raises(SettingsError) as refused:
        load_enclave_config(text.encode(), "enclave.toml", reads_roots=False)
    said = str(refused.value)
    assert message in said
    assert said.startswith("enclave.toml:")
    assert int(said.split(":")[1]) in range(text[: text.index("[egress]")].count("\n") + 1, text.count("\n") + 1)


def test_the_line_of_the_rule_at_fault_is_named() -> None:
    text = REST + "[egress]\nallow = [\n  { name = 'a.example', ports = [1] },\n  { name = 'b.example', ports = [0] },\n]\n"
    with pytest.raises(SettingsError) as refused:
        load_enclave_config(text.encode(), "enclave.toml", reads_roots=False)
    assert refused.value.problems[0].key == "egress.allow[1].ports[0]"
    assert text.split("\n")[refused.value.problems[0].line - 1].strip() in ("{ name = 'b.example', ports = [0] },", "allow = [")


def test_an_empty_list_allows_nothing() -> None:
    for rules in ("", "[egress]\n", "[egress]\nallow = []\n"):
        empty = policy(rules)
        assert empty.decide("api.example.com", 443).reason == "list_empty"
        assert empty.decide("10.1.2.3", 443).reason == "list_empty"
        assert empty.resolvable("api.example.com").reason == "list_empty"
        assert list(empty.exact_names()) == []


def test_names_are_normalised_once() -> None:
    for written in ("BÜCHER.example", "Straße.example"):
        text = f"[egress]\nallow = [{{ name = '{written.replace('Ü', 'ü')}', ports = [443] }}]\n"
        (name,) = policy(text).exact_names()
        assert name.startswith("xn--")
        assert policy(text).decide(name.upper() + ".", 443).allowed
    (name,) = policy("[egress]\nallow = [{ name = 'API.Example.COM.', ports = [443] }]\n").exact_names()
    assert name == "api.example.com"
