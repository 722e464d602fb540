"""enclave.toml: what the schema takes, what it means when left out, and what it refuses."""

import base64
import re
from datetime import UTC, datetime
from hashlib import sha384
from ipaddress import ip_network
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from runtime.enclave import config as schema
from runtime.enclave.config import EgressRule, EnclaveConfig, Process, Ready, load_enclave_config, start_order
from runtime.enclave.config_values import RUNTIME_UID_RANGE, Url, User
from runtime.net.endpoint import Tcp, Unix
from runtime.protocol.sealed_logs import LogRecipient
from runtime.protocol.sealing import Suite
from runtime.settings import SettingsError


def certificate() -> x509.Certificate:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a root")])
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC))
        .sign(key, None)
    )  # fmt: skip


ROOT = certificate()
PEM = ROOT.public_bytes(Encoding.PEM).decode()
KEY = bytes(range(32))
PROVISIONER = f'''
[provisioner]
url = "https://provisioner.example.com:7443"
ca = """{PEM}"""
keys = ["ed25519:{base64.b64encode(KEY).decode()}"]
'''
SMALLEST = f'version = 1\n[enclave]\nid = "payments-prod"\n[[process]]\nname = "app"\n{PROVISIONER}'


def loaded(text: str) -> EnclaveConfig:
    return load_enclave_config(text.encode(), "enclave.toml")


def complaint(text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(text)
    return str(refused.value)


def test_the_whole_schema_is_taken() -> None:
    text = f"""
version = 1
[enclave]
id = "payments-prod"
epoch = 7
[[process]]
name = "app"
command = ["/usr/bin/app", "--port", "8080"]
user = "1000:1001"
workdir = "/srv"
after = ["cache"]
restart = "always"
stop_grace = "0s"
ready = {{ http = "http://127.0.0.1:8080/healthz", interval = "1s", timeout = "2s", failures = 3 }}
env = {{ LOG_LEVEL = "info" }}
secrets = ["DATABASE_URL"]
[[process]]
name = "cache"
user = "5"
ready = {{ tcp = "127.0.0.1:6379" }}
[[process]]
name = "third"
ready = {{ exec = ["/bin/true"] }}
[ingress]
mode = "http"
upstream = "unix:/run/app.sock"
vsock_port = 5000
[ingress.limits]
handshake_timeout = "5s"
max_body_size = "1MiB"
[ingress.http]
request_log = false
[tls]
names = ["payments.example.com", "Pay.Example.com"]
min_version = "1.3"
{PROVISIONER}
channel = "none"
renew = false
[egress]
allow = [
  {{ name = "api.stripe.com", ports = [443] }},
  {{ suffix = "example.com", ports = [80, 443] }},
  {{ cidr = "10.1.0.0/16", ports = [5432] }},
]
[attestation]
listen = "tcp:[::1]:9000"
socket = "/run/attestation.sock"
[log]
level = "warning"
max_line_size = "4KiB"
buffer_size = "1MiB"
rate = 10
burst = 20
byte_rate = "64KiB"
byte_burst = "128KiB"
encrypt_to = "x25519:CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
[health]
start_timeout = "90s"
[limits]
open_files = 1024
restarts = 0
restart_window = "1m"
"""
    config = loaded(text)
    app, cache, third = config.process
    assert (config.enclave.id, config.enclave.epoch) == ("payments-prod", 7)
    assert (app.command, app.user, app.workdir, app.stop_grace) == (
        ("/usr/bin/app", "--port", "8080"),
        User(1000, 1001),
        "/srv",
        0.0,
    )
    assert app.ready == Ready(http=Url("http", "127.0.0.1", 8080, "/healthz"), interval=1.0, timeout=2.0, failures=3)
    assert (app.env, app.secrets, app.restart) == ({"LOG_LEVEL": "info"}, ("DATABASE_URL",), "always")
    assert (cache.user, cache.ready) == (User(5, 5), Ready(tcp=Tcp("127.0.0.1", 6379)))
    assert third.ready == Ready(exec=("/bin/true",))
    assert (config.ingress.upstream, config.ingress.vsock_port, config.ingress.workers) == (Unix("/run/app.sock"), 5000, "auto")
    assert (config.ingress.limits.handshake_timeout, config.ingress.limits.max_body_size) == (5.0, 1 << 20)
    assert (config.ingress.http.trusted_headers, config.ingress.http.request_log) == ((), False)
    assert (config.tls.names, config.tls.min_version) == (("payments.example.com", "pay.example.com"), "1.3")
    assert config.provisioner is not None
    assert config.provisioner.url == Url("https", "provisioner.example.com", 7443, "")
    assert (config.provisioner.ca.read(), config.provisioner.keys) == ((ROOT,), (KEY,))
    assert (config.provisioner.channel, config.provisioner.renew) == ("none", False)
    assert config.egress.allow == (
        EgressRule(name="api.stripe.com", ports=(443,)),
        EgressRule(suffix="example.com", ports=(80, 443)),
        EgressRule(cidr=ip_network("10.1.0.0/16"), ports=(5432,)),
    )
    assert (config.attestation.listen, config.attestation.socket) == (Tcp("::1", 9000), "/run/attestation.sock")
    assert (config.log.level, config.log.max_line_size, config.log.buffer_size) == ("warning", 4096, 1 << 20)
    assert (config.log.rate, config.log.burst, config.log.byte_rate, config.log.byte_burst) == (10, 20, 1 << 16, 1 << 17)
    assert config.log.encrypt_to == LogRecipient(Suite.X25519, b"\x09".ljust(32, b"\0"))
    assert config.health.start_timeout == 90.0
    assert (config.limits.open_files, config.limits.restarts, config.limits.restart_window) == (1024, 0, 60.0)
    assert config.digest == sha384(text.encode()).digest()


def test_what_is_left_out_lets_nothing_in_and_nothing_out() -> None:
    config = loaded(SMALLEST)
    assert config.ingress.mode == "off"
    assert config.egress.allow == ()
    assert config.process[0].secrets == ()
    assert config.process[0].command is None
    assert config.process[0].user is None
    assert config.attestation.listen == Tcp("127.0.0.1", 9999)
    assert config.ingress.http.attestation_path == "/.well-known/attestation"
    assert config.provisioner is not None
    assert (config.provisioner.channel, config.provisioner.renew) == ("exporter", True)


def test_the_digest_is_that_of_the_bytes_as_given() -> None:
    assert loaded(SMALLEST).digest == sha384(SMALLEST.encode()).digest()
    assert loaded(SMALLEST + "# a comment\n").digest != loaded(SMALLEST).digest


def with_process(line: str) -> str:
    return SMALLEST.replace('name = "app"', f'name = "app"\n{line}')


PROCESS_LINES = [
    ('user = "app"', 'enclave.toml:6: process[0].user: must be numeric, "uid" or "uid:gid"'),
    ('user = "01"', "must be numeric"),
    ('user = "1:2:3"', "must be numeric"),
    ('user = "4294967295"', "must not be over 4294967294"),
    (f'user = "{RUNTIME_UID_RANGE[0]}"', "65500 is the runtime's own"),
    (f'user = "1000:{RUNTIME_UID_RANGE[-1]}"', "65519 is the runtime's own"),
    ("command = []", "process[0].command: must not be empty"),
    ('command = [""]', "process[0].command[0]: must not be empty"),
    ('command = ["a", "b\\u0000c"]', "process[0].command[1]: must be text without a zero byte"),
    ('workdir = "srv"', "process[0].workdir: must be an absolute path"),
    ('after = ["db"]', 'enclave.toml:6: process[0].after[0]: "db" is not a process'),
    ('after = ["app"]', "process[0].after: waits for itself"),
    ('restart = "sometimes"', 'must be one of "never", "on-failure", "always"'),
    ('stop_grace = "2h"', "process[0].stop_grace: must be from 0s to 1h"),
    ('ready = { interval = "1s" }', "process[0].ready: must have exactly one of http, tcp and exec"),
    ('ready = { tcp = "a:1", exec = ["b"] }', "process[0].ready: must have exactly one of http, tcp and exec"),
    ('ready = { tcp = "8080" }', 'process[0].ready.tcp: must be a host and a port, such as "127.0.0.1:8080"'),
    ('ready = { http = "https://127.0.0.1/" }', "process[0].ready.http: must start with http://"),
    ('ready = { http = "http://127.0.0.1/?a=1" }', "without user, query and fragment"),
    ('ready = { exec = [] }', "process[0].ready.exec: must not be empty"),
    ('ready = { htp = "x" }', 'process[0].ready.htp: is not a known key (did you mean "http"?)'),
    ('env = { "A=B" = "1" }', 'process[0].env."A=B": is not a name that an environment can have'),
    ('env = { A = 1 }', "process[0].env.A: must be a string"),
    ('env = { A = "1" }\nsecrets = ["A"]', "process[0].env.A: is the name of a secret too"),
    ('secrets = ["A", "A"]', "process[0].secrets: names A more than once"),
    ('secrets = ["not a name"]', "process[0].secrets[0]: must be a name of letters"),
    ('image = "x"', "process[0].image: is not a known key"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), PROCESS_LINES)
def test_a_process_that_cannot_be_run_as_written_is_refused(line: str, expected: str) -> None:
    assert expected in complaint(with_process(line))


SECTIONS = [
    ("[ingress]\nmode = 'http'", "ingress.upstream: is missing"),
    ("[ingress]\nupstream = 'tcp:127.0.0.1:80'", "ingress.upstream: needs a mode"),
    ("[ingress]\nmode = 'http'\nupstream = 'vsock:3:80'", "ingress.upstream: must be tcp:HOST:PORT or unix:PATH"),
    ("[ingress]\nmode = 'http'\nupstream = 'tcp:127.0.0.1:0'", "ingress.upstream: must be tcp:HOST:PORT or unix:PATH"),
    ("[ingress]\nmode = 'http'\nupstream = '127.0.0.1:80'", "ingress.upstream: vsock:CID:PORT, unix:PATH or tcp:HOST:PORT expected"),
    ("[ingress]\nmode = 'http'\nupstream = 'tcp:127.0.0.1:80'", "tls.names: is missing"),
    ("[ingress]\nworkers = 0", "ingress.workers: must be from 1 to 64"),
    ("[ingress.limits]\nmax_connections = 0", "ingress.limits.max_connections: must be from 1 to 1000000"),
    ("[ingress.limits]\nhandshake_timeout = '0s'", "ingress.limits.handshake_timeout: must be from 100ms to 1h"),
    ("[ingress.http]\ntrusted_headers = ['X-Real-IP']", 'ingress.http.trusted_headers[0]: must be one of "forwarded", "x-forwarded-for"'),
    ("[ingress.http]\ntrusted_headers = ['forwarded', 'forwarded']", "ingress.http.trusted_headers: names forwarded more than once"),
    ("[ingress.http]\nmethods = ['get']", "ingress.http.methods[0]: must be a method in upper case"),
    ("[ingress.http]\napi_keys = ['x']", "ingress.http.api_keys: is not a known key"),
    ("[ingress]\nnot_ready = 'wait'", 'ingress.not_ready: must be one of "answer", "close"'),
    ("[ingress.limits]\nmax_request_line = '64KiB'", "ingress.limits.max_request_line: must not be over max_header_size"),
    ("[ingress.limits]\nexchange_timeout = '1m'", "ingress.limits.body_timeout: must not be over exchange_timeout"),
    ("[ingress.http]\nattestation_path = '/a?b'", "ingress.http.attestation_path: must be a path of plain characters"),
    ("[tls]\nnames = ['10.0.0.1']", "tls.names[0]: must be a DNS name"),
    ("[tls]\nnames = ['*.example.com']", "tls.names[0]: must be a DNS name"),
    ("[tls]\nnames = ['example.com.']", "tls.names[0]: must be a DNS name"),
    ("[tls]\nnames = ['a.example', 'A.example']", "tls.names: names a.example more than once"),
    ("[tls]\nmin_version = '1.1'", 'tls.min_version: must be one of "1.2", "1.3"'),
    ("[tls.acme]\n", 'tls.acme: has no meaning unless source is "acme"'),
    *(
        (f"[egress]\nproxy = '{proxy}'", "egress.proxy: must be tcp: on an address of 127.0.0.0/16")
        for proxy in ("tcp:0.0.0.0:3128", "tcp:127.64.0.1:3128", "tcp:localhost:3128", "tcp:127.0.0.1:0", "unix:/proxy", "vsock:3:1")
    ),
    ("[egress]\nallow = [{ ports = [1] }]", "egress.allow[0]: must have exactly one of name, suffix and cidr"),
    ("[egress]\nallow = [{ name = 'a.b', suffix = 'b', ports = [1] }]", "egress.allow[0]: must have exactly one of"),
    ("[egress]\nallow = [{ name = 'a.b' }]", "egress.allow[0].ports: is missing"),
    ("[egress]\nallow = [{ name = 'a.b', ports = [] }]", "egress.allow[0].ports: must not be empty"),
    ("[egress]\nallow = [{ name = 'a.b', ports = [0] }]", "egress.allow[0].ports[0]: must be from 1 to 65535"),
    ("[egress]\nallow = [{ name = 'a.b', ports = ['443'] }]", "egress.allow[0].ports[0]: must be an integer, not a string"),
    ("[egress]\nallow = [{ name = 'a.b', ports = [1, 1] }]", "egress.allow[0].ports: names 1 more than once"),
    ("[egress]\nallow = [{ cidr = '10.1.2.3/16', ports = [1] }]", "egress.allow[0].cidr: must be a network"),
    ("[attestation]\nlisten = 'tcp:0.0.0.0:9999'", "attestation.listen: must be tcp: on a loopback address"),
    ("[attestation]\nlisten = 'tcp:localhost:9999'", "attestation.listen: must be tcp: on a loopback address"),
    ("[attestation]\nlisten = 'unix:/a'", "attestation.listen: must be tcp: on a loopback address"),
    ("[attestation]\nsocket = 'a'", "attestation.socket: must be an absolute path"),
    ("[log]\nlevel = 'verbose'", 'log.level: must be one of "debug", "info", "warning", "error"'),
    ("[limits]\nopen_files = 1", "limits.open_files: must be from 16 to 1048576"),
    ("[logs]\n", 'logs: is not a known key (did you mean "log"?)'),
    ("[[process]]\nname = 'app'", 'process[1].name: "app" is another process already'),
    ("[[process]]\nname = 'App 2'", "process[1].name: must be 1 to 64 lower-case letters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SECTIONS)
def test_a_section_that_cannot_be_kept_is_refused(text: str, expected: str) -> None:
    assert expected in complaint(SMALLEST + text)


PROVISIONER_CHANGES = [
    ("https://", "http://", "provisioner.url: must start with https://"),
    ("https://provisioner.example.com:7443", "https://a:b@provisioner.example.com", "without user, query and fragment"),
    (":7443", ":7443/base", "provisioner.url: must not have a path"),
    (":7443", ":99999", 'provisioner.url: must be a URL, such as "https://host.example.com:443"'),
    ("provisioner.example.com", "", 'provisioner.url: must be a URL, such as "https://host.example.com:443"'),
    ("BEGIN CERTIFICATE", "BEGIN CERTIFICAT", "provisioner.ca: must be one or more PEM certificates that parse"),
    (PEM[40:50], "AAAAAAAAAA", "provisioner.ca: must be one or more PEM certificates that parse"),
    (PEM, "", "provisioner.ca: must be one or more PEM certificates that parse"),
    ("ed25519:", "rsa:", 'provisioner.keys[0]: must be "ed25519:" and the base64 of 32 bytes'),
    ("ed25519:AAEC", "ed25519:", 'provisioner.keys[0]: must be "ed25519:" and the base64 of 32 bytes'),
    ("ed25519:AAEC", "ed25519:A-EC", 'provisioner.keys[0]: must be "ed25519:" and the base64 of 32 bytes'),
    ('keys = ["', 'keys = [] # ["', "provisioner.keys: must not be empty"),
]


@pytest.mark.parametrize(("old", "new", "expected"), PROVISIONER_CHANGES)
def test_a_provisioner_that_could_not_be_trusted_is_refused(old: str, new: str, expected: str) -> None:
    assert old in SMALLEST
    assert expected in complaint(SMALLEST.replace(old, new))


def with_damaged_root(old: bytes, new: bytes) -> str:
    der = ROOT.public_bytes(Encoding.DER)
    assert old in der
    lines = base64.encodebytes(der.replace(old, new, 1)).decode()
    return SMALLEST.replace(PEM, f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (bytes.fromhex("020101"), bytes.fromhex("020100")),  # serial number 0, which RFC 5280 section 4.1.2.2 forbids
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),  # version 8
        (bytes.fromhex("06032b6570032100"), bytes.fromhex("06032b6579032100")),  # a key of an unknown algorithm
        (b"260101", b"26AA01"),
    ],
    ids=["serial number", "version", "key", "date"],
)
def test_a_root_that_is_only_half_right_is_refused_before_it_is_needed(old: bytes, new: bytes) -> None:
    assert "enclave.toml:9: provisioner.ca: must be one or more PEM certificates that parse: " in complaint(
        with_damaged_root(old, new)
    )


def test_a_file_of_more_than_64_kib_is_refused() -> None:
    assert "enclave.toml:1: has 65537 bytes; 65536 are allowed" in complaint(SMALLEST + "#" * (65537 - len(SMALLEST)))
    assert loaded(SMALLEST + "#" * (65536 - len(SMALLEST))).version == 1


def test_without_a_provisioner_there_is_nobody_to_ask() -> None:
    assert 'enclave.toml:1: provisioner: is missing: it is what tls.source = "provisioner" asks' in complaint(
        SMALLEST.replace(PROVISIONER, "")
    )


@pytest.mark.parametrize("text", ["", "version = 2", "version = 1\nprocess = []"])
def test_a_file_of_another_version_or_without_a_process_is_refused(text: str) -> None:
    assert re.search("version: (must be 1|is missing)|process: must not be empty", complaint(text))


NOT_YET = {
    ("tls", "source", "acme"): "[tls]\nsource = 'acme'\n[tls.acme]\n",
    ("tls", "source", "self-signed"): "[tls]\nsource = 'self-signed'",
    ("tls", "client_ca", schema.ANYTHING): "[tls]\nclient_ca = 'x'",
}


@pytest.mark.parametrize(("entry", "text"), list(NOT_YET.items()), ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_what_this_version_cannot_do_is_refused_and_not_ignored(entry: tuple[str, str, Any], text: str) -> None:
    assert f"{entry[0]}.{entry[1]}: " in complaint(SMALLEST + text)
    assert "is not available in this version" in complaint(SMALLEST + text)


def test_the_list_of_what_is_not_available_is_tested_whole() -> None:
    assert set(schema.NOT_YET) == set(NOT_YET)


def process(name: str, *after: str) -> Process:
    return Process(name=name, after=after)


def test_processes_start_after_those_that_they_name() -> None:
    first, second, third = process("a", "c"), process("b"), process("c", "b")
    assert start_order([first, second, third]) == (second, third, first)


def test_a_cycle_of_processes_is_named() -> None:
    text = with_process('after = ["b"]') + "[[process]]\nname = 'b'\nafter = ['c']\n[[process]]\nname = 'c'\nafter = ['app']\n"
    assert "enclave.toml:6: process[0].after: waits for itself, through the processes that it comes after" in complaint(text)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_configuration_or_the_one_error(raw: bytes) -> None:
    with pytest.raises(SettingsError):
        load_enclave_config(raw, "enclave.toml")


@given(st.sampled_from(SMALLEST.splitlines()), st.binary(max_size=8))
def test_a_damaged_file_gives_a_configuration_or_the_one_error(line: str, damage: bytes) -> None:
    raw = SMALLEST.encode().replace(line.encode(), line.encode()[: len(line) // 2] + damage + line.encode()[len(line) // 2 :])
    try:
        digest = load_enclave_config(raw, "enclave.toml").digest
    except SettingsError as refused:
        digest = sha384(raw).digest() if refused.problems else b""
    assert digest == sha384(raw).digest()
