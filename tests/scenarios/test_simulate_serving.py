"""`enclave simulate` while it serves: what anybody can verify about it from outside, and what a customer process can do inside."""

import base64
import http.client
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509

from runtime.client.session import Policy, Target, open_session
from runtime.net.clock import utc_now
from runtime.net.http import Response
from runtime.protocol.binding import AppBinding, decode_binding
from runtime.protocol.document import parse_document
from runtime.verifier.reference import parse_reference
from tests.scenarios.machines import free_port
from tests.scenarios.programs import Served, enclave, is_alive, serving

INSPECTOR = """
import hashlib, http.server, json, os, socket, sys, urllib.request

FOLDER, API = sys.argv[2], os.environ["ENCLAVE_ATTESTATION_URL"]


def attempt(call):
    try:
        return ["done", repr(call())[:60]]
    except Exception as error:
        return ["failed", type(error).__name__]


def read(path):
    with open(path, "rb") as file:
        return len(file.read(64))


def connect(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def memory(pid):
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return len(os.pread(descriptor, 16, int(open(f"/proc/{pid}/maps").readline().split("-")[0], 16)))
    finally:
        os.close(descriptor)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def shown():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def others():
    # not only those that /proc shows
    return [pid for pid in {1, *range(2, min(os.getpid(), 1000)), *shown()} - {os.getpid()} if is_there(pid)]


def report():
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return {
        "pid": os.getpid(),
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": os.getgroups(),
        "no_new_privs": status["NoNewPrivs"].strip(),
        "capabilities": {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "environment": sorted(os.environ),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "provisioner": attempt(lambda: os.listdir(FOLDER + "/provisioner")),
        "provisioner's key": attempt(lambda: read(FOLDER + "/provisioner/release.key")),
        "attestation root's key": attempt(lambda: read(FOLDER + "/nsm/root.key")),
        "parent's key": attempt(lambda: read(FOLDER + "/parent/parent.key")),
        "log": attempt(lambda: os.listdir(FOLDER + "/log")),
        "security module": attempt(lambda: connect(FOLDER + "/vsock/nsm.sock")),
        "parent's egress": attempt(lambda: connect(FOLDER + "/vsock/parent-9002.sock")),
        "environment of PID 1": attempt(lambda: read("/proc/1/environ")),
        "memory of PID 1": attempt(lambda: memory(1)),
        "memory of the others": [attempt(lambda: memory(pid)) for pid in others()],
        "processes shown": shown(),
        "signal to the others": [attempt(lambda: os.kill(pid, 0)) for pid in others()],
        "a write to its root": attempt(lambda: open("/etc/written", "w")),
        "a write to its own files": attempt(lambda: open(FOLDER + "/enclave/enclave.toml", "a")),
        "becoming root": attempt(lambda: os.setuid(0)),
        "the network outside": attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.2)),
        "/dev": sorted(os.listdir("/dev")),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/report":
            body = json.dumps(report()).encode()
        else:
            body = hashlib.sha256(os.environ["GREETING_KEY"].encode()).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(name="served", scope="module")
def fixture_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One simulation for all tests here; none of them changes it."""
    folder = tmp_path_factory.mktemp("served")
    port = free_port()
    (folder / "inspector.py").write_text(INSPECTOR)
    (folder / "enclave.toml").write_text(f"""
version = 1

[enclave]
id = "inspected"
epoch = 3

[[process]]
name = "app"
command = ["python3", "inspector.py", "{port}", "{folder / "state"}"]
user = "1000:1000"
secrets = ["GREETING_KEY"]
ready = {{ tcp = "127.0.0.1:{port}", interval = "100ms" }}

[ingress]
mode = "http"
upstream = "tcp:127.0.0.1:{port}"
workers = 1

[attestation]
listen = "tcp:127.0.0.1:{free_port()}"
""")
    with serving(folder / "enclave.toml", folder / "state") as served:
        yield served


@pytest.fixture(name="report", scope="module")
def fixture_report(served: Served) -> dict[str, Any]:
    """What the customer process found out about itself."""
    answer = get(served, "/report")
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


def get(served: Served, path: str) -> Response:
    """A page, over an attested connection."""
    policy = Policy(
        roots=x509.load_pem_x509_certificates(Path(served.ready["root"]).read_bytes()),
        reference=parse_reference(Path(served.ready["reference"]).read_text()),
        ca=x509.load_pem_x509_certificates(Path(served.ready["ca"]).read_bytes()),
    )

    async def fetch() -> Response:
        target = Target.parse(served.ready["url"])
        async with open_session(target, policy, nonce=secrets.token_bytes(32), clock=utc_now) as session:
            return await session.request("GET", path)

    return trio.run(fetch)


def files(served: Served, *names: str) -> list[str]:
    return [word for name in names for word in (f"--{name}", served.ready[name])]


def test_everything_that_ready_json_names_is_there(served: Served) -> None:
    assert set(served.ready) == {"url", "ca", "root", "reference", "local_api", "pids"}
    assert all(Path(served.ready[name]).is_file() for name in ("ca", "root", "reference"))
    assert all(is_alive(pid) for pid in served.ready["pids"].values())
    assert served.ready["url"].startswith("https://localhost:")
    assert served.is_isolated in (True, False), "it said which of the two"


def test_a_stranger_with_the_right_files_proves_what_it_is(served: Served) -> None:
    status, verdict = served.attest(*files(served, "root", "reference", "ca"))
    assert status == 0
    assert verdict["accepted"] is True
    assert verdict["reasons"] == []
    assert verdict["reference"] == "inspected (simulated)"
    assert verdict["certificate_judged"] is True
    assert verdict["tls_version"] == "1.3"


def test_the_evidence_alone_will_do_without_the_ca(served: Served) -> None:
    status, verdict = served.attest(*files(served, "root", "reference"))
    assert (status, verdict["accepted"], verdict["certificate_judged"]) == (0, True, False)


@pytest.mark.parametrize("register", [0, 1, 2])
def test_another_reference_value_is_not_met(served: Served, tmp_path: Path, register: int) -> None:
    measurement = parse_reference(Path(served.ready["reference"]).read_text()).measurements[0]
    right = measurement.pcrs[register].hex()
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    other = tmp_path / "other.toml"
    other.write_text(Path(served.ready["reference"]).read_text().replace(right, wrong))
    status, verdict = served.attest(*files(served, "root", "ca"), "--reference", other)
    assert (status, verdict["accepted"], verdict["reasons"]) == (1, False, ["measurement_unknown"])


def test_no_reference_values_are_not_met_either(served: Served) -> None:
    status, verdict = served.attest(*files(served, "root", "ca"))
    assert (status, verdict["reasons"]) == (1, ["reference_missing"])


def test_for_whoever_trusts_aws_it_is_nobody(served: Served) -> None:
    status, verdict = served.attest(*files(served, "reference", "ca"))
    assert (status, verdict["accepted"], verdict["reasons"]) == (1, False, ["root_unknown"])


def test_a_ca_that_did_not_issue_its_certificate_refuses_it(served: Served) -> None:
    wrong = served.layout.provisioner / "server-ca.pem"
    status, verdict = served.attest(*files(served, "root", "reference"), "--ca", wrong)
    assert (status, verdict["reasons"]) == (1, ["tls_certificate"])


def test_a_page_shows_the_secret_by_its_digest(served: Served) -> None:
    expected = sha256(served.secrets("inspected")["GREETING_KEY"]).hexdigest()
    answer = get(served, "/")
    assert (answer.status, answer.body.decode()) == (200, expected)
    curl = shutil.which("curl")
    if curl is not None:  # an ordinary client sees an ordinary server
        command = [curl, "--silent", "--show-error", "--cacert", served.ready["ca"], served.ready["url"]]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, expected, "")


def test_the_local_api_makes_documents_that_verify_and_that_are_marked_as_an_applications(served: Served, tmp_path: Path) -> None:
    nonce, challenge = secrets.token_bytes(32), secrets.token_bytes(20)
    document = post_local(served, {"nonce": nonce, "challenge": challenge})
    assert decode_binding(parse_document(document).user_data or b"") == AppBinding(challenge=challenge)
    file = tmp_path / "document.cbor"
    file.write_bytes(document)
    finished = enclave("verify", file, *files(served, "root", "reference"), "--nonce", nonce.hex(), "--json")
    assert (finished.returncode, json.loads(finished.stdout)["reasons"]) == (0, [])
    for arguments, reason in (
        (files(served, "reference"), "root_unknown"),
        ([*files(served, "root", "reference"), "--nonce", bytes(32).hex()], "nonce_mismatch"),
    ):
        refused = enclave("verify", file, *arguments, "--json")
        assert (refused.returncode, json.loads(refused.stdout)["reasons"]) == (1, [reason])


def post_local(served: Served, fields: dict[str, bytes]) -> bytes:
    connection = http.client.HTTPConnection(served.ready["local_api"].removeprefix("http://"), timeout=30)
    body = json.dumps({name: base64.b64encode(value).decode() for name, value in fields.items()})
    connection.request("POST", "/attestation-doc", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    document = response.read()
    connection.close()
    assert (response.status, response.getheader("Content-Type")) == (200, "application/cbor")
    return document


def test_a_process_gets_no_privilege_and_no_way_to_one(served: Served, report: dict[str, Any]) -> None:
    assert report["pid"] != 1
    assert report["no_new_privs"] == "1"
    assert report["descriptors"][:3] == [0, 1, 2]
    if os.geteuid() == 0:
        assert report["uids"] == report["gids"] == [1000, 1000, 1000]
        assert report["groups"] == []
        assert set(report["capabilities"].values()) == {0}
        assert report["becoming root"] == ["failed", "PermissionError"]
    else:
        assert not served.is_isolated
        assert report["uids"] == [os.geteuid()] * 3


def test_a_process_gets_the_environment_that_it_was_promised_and_nothing_of_ours(report: dict[str, Any]) -> None:
    allowed = {"PATH", "ENCLAVE_ATTESTATION_URL", "GREETING_KEY", "LC_CTYPE"}
    assert {"PATH", "ENCLAVE_ATTESTATION_URL", "GREETING_KEY"} <= set(report["environment"]) <= allowed


HIDDEN = ("provisioner", "provisioner's key", "attestation root's key", "parent's key", "log", "security module", "parent's egress")
FORBIDDEN = ("environment of PID 1", "memory of PID 1", "a write to its root", "a write to its own files", "the network outside")


@pytest.mark.parametrize("what", [*HIDDEN, *FORBIDDEN])
def test_a_process_cannot_reach_what_is_not_its_own(served: Served, report: dict[str, Any], what: str) -> None:
    done, how = report[what]
    if served.is_isolated:
        assert done == "failed", how
        assert how in {"PermissionError", "FileNotFoundError", "OSError", "ConnectionRefusedError", "TimeoutError"}
    else:  # on a machine without namespaces only its own user protects it, and here that is the same one
        assert done in {"done", "failed"}


def test_a_process_cannot_touch_the_memory_of_any_other_nor_signal_it(served: Served, report: dict[str, Any]) -> None:
    if served.is_isolated:
        assert len(report["memory of the others"]) >= 3, "PID 1 and its workers are there"
        assert {tuple(entry) for entry in report["memory of the others"]} == {("failed", "FileNotFoundError")}, "hidden from it"
        assert report["processes shown"] == [report["pid"]]
        assert {tuple(entry) for entry in report["signal to the others"]} == {("failed", "PermissionError")}
    else:
        assert report["signal to the others"]


def test_a_process_sees_only_a_loopback_and_the_harmless_devices(served: Served, report: dict[str, Any]) -> None:
    if served.is_isolated:
        assert report["interfaces"] == ["lo"]
        devices = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin", "stdout", "stderr"}
        assert set(report["/dev"]) == devices
    else:
        assert "lo" in report["interfaces"]
