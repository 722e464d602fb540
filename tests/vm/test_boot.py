"""An image, booted byte for byte on a real kernel: first process, /dev/nsm and vsock are the kernel's own."""

import json
import signal
import ssl
import subprocess
import sys
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path
from secrets import token_bytes
from urllib.parse import urlsplit

from runtime.simulator.layout import Layout
from runtime.simulator.steps import EXPECTED_OF_MACHINE
from tests.scenarios.programs import ROOT, enclave
from tests.vm.images import LARGE

PARALLEL = 40
PATIENCE = 220.0
"""Seconds for what takes 15 on an idle machine without KVM."""


def test_once_takes_every_step_and_the_enclave_turns_its_machine_off(image: Path) -> None:
    folder = image.parent / "machine"
    status, said, errors = _finished(_start(image, "--once", "--json", "--memory", "256MiB"))
    assert (status, errors) == (0, "")
    steps = [json.loads(line) for line in said.splitlines()]
    seen = {step["step"]: step for step in steps}
    assert set(EXPECTED_OF_MACHINE) <= seen.keys()
    order = [step["step"] for step in steps]
    assert (
        order.index("machine.heartbeat")
        < order.index("boot.started")
        < order.index("enclave.ready")
        < order.index("client.answered")
    )
    predicted = json.loads(enclave("measure", image, "--json").stdout)["Measurements"]
    assert seen["image.measured"]["pcrs"] == {str(number): predicted[f"PCR{number}"] for number in (0, 1, 2)}

    layout = Layout(folder)
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    journal = [event for event in events if event["kind"] == "journal"]
    assert (journal[0]["event"], journal[0]["fields.pid_one"]) == ("boot.started", 1)
    assert [event for event in journal if event["event"] in ("init.soft_failed", "boot.failed", "worker.broken")] == []
    done = next(event for event in journal if event["event"] == "init.done")
    assert done["fields.left"] == "console,subreaper", "nothing else was there before the first process"
    assert [path for path in folder.rglob("*") if path.is_socket()] == []


def test_what_it_serves_is_proved_by_documents_of_the_kernels_driver_and_goes_through_vsock_whole(image: Path) -> None:
    process = _start(image)
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "is up. Ctrl-C stops everything" in line:
                break
        assert process.poll() is None, "".join(said)
        _use(image.parent / "machine", image)
    finally:
        process.send_signal(signal.SIGTERM)
        status, rest, errors = _finished(process)
    assert (status, errors) == (0, ""), rest


def _start(image: Path, *options: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "runtime.cli",
        "vm",
        str(image),
        "--dir",
        str(image.parent / "machine"),
        "--cpus",
        "1",
        *options,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit status, standard output and standard error; one that takes too long is asked to stop, as only it stops what it started."""
    with process:
        try:
            said, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            said, errors = process.communicate()
    return process.returncode, said, errors


def _use(folder: Path, image: Path) -> None:
    ready = json.loads((folder / "ready.json").read_text())
    described = folder / "described.json"
    described.write_text(enclave("measure", image, "--json").stdout)

    attested = enclave("attest", ready["url"], "--json", "--root", ready["root"], "--reference", described, "--ca", ready["ca"])
    assert attested.returncode == 0, attested.stdout

    nonce = token_bytes(32)
    answer = json.loads(_get(ready, f"/.well-known/attestation?nonce={urlsafe_b64encode(nonce).decode()}"))
    document = folder / "document"
    document.write_text(answer["attestation_doc"])
    verified = enclave("verify", document, "--nonce", nonce.hex(), "--root", ready["root"], "--reference", described, "--json")
    assert verified.returncode == 0, verified.stdout
    assert enclave("verify", document, "--nonce", nonce.hex(), "--reference", described).returncode == 1, (
        "under AWS's root it is nothing"
    )

    with ThreadPoolExecutor(PARALLEL) as pool:
        assert set(pool.map(lambda _: _get(ready, "/"), range(PARALLEL))) == {b"hello\n"}
    assert _get(ready, "/large") == LARGE


def _get(ready: dict[str, str], target: str) -> bytes:
    at = urlsplit(ready["url"])
    connection = HTTPSConnection("localhost", at.port, context=ssl.create_default_context(cafile=ready["ca"]), timeout=60)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, body
    return body
