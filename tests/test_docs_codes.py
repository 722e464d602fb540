"""Keeps the pages' tables of codes and events true: what the code can say stands in them, and with the same outcome."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from runtime.enclave.identity import nsm
from runtime.net import tls_context
from runtime.protocol.link_values import STAGES
from runtime.protocol.nsm import NsmErrorCode
from runtime.provisioner.service import external
from runtime.verifier.reasons import Mismatch, Reason, prov_reason
from tests.support.pages import prose, quoted, rows, section

RUNTIME = Path(__file__).parents[1] / "runtime"
PROTOCOL = RUNTIME / "protocol" / "README.md"
REASONS = "### 1.6 Reasons and codes"


def calls(folder: str, *names: str) -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a function or method of one of `names` in the files of a folder of `runtime`, or in one file."""
    place = RUNTIME / folder
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in names:
                    yield path, node


def texts(node: ast.expr) -> set[str]:
    """The strings that an argument may be: itself, or either of a choice."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=other):
            return texts(body) | texts(other)
        case _:
            return set()


def said(folder: str, *names: str, position: int = 0) -> set[str]:
    """The strings that calls of `names` have at `position`."""
    return {text for _, call in calls(folder, *names) if len(call.args) > position for text in texts(call.args[position])}


# Reasons of PROV/1


def reasons_of_the_provisioner() -> set[str]:
    found = said("provisioner", "Refused") | {"malformed"}
    found |= {prov_reason([Mismatch(code=reason, detail="")]) for reason in Reason}
    found |= {"unsupported_version", "suite_refused"} & said("protocol/handshake.py", "Refused")
    return found | ({"hpke_key"} & said("protocol/sealing.py", "Refused"))


def test_every_reason_of_the_provisioner_stands_in_the_page_with_the_code_that_a_peer_gets() -> None:
    table = [row for row in rows(section(PROTOCOL, REASONS)) if len(row) == 3]
    written = {reason: row[2] for row in table for reason in quoted(row[0])}
    assert set(written) == reasons_of_the_provisioner()
    for reason, outcome in written.items():
        failure = external(reason)
        retry = "" if failure.retry_after is None else f", retry after {failure.retry_after} s"
        assert outcome == f"`{failure.code}`{retry}", reason


def test_the_reasons_of_a_check_stand_beside_it() -> None:
    checks = section(PROTOCOL, "### 1.4 The provisioner's checks, in this order")
    named = {reason for row in rows(checks) for reason in quoted(row[2])}
    later = {"confirm_proof", "confirm_changed", "confirm_late", "lease_unknown"}
    earlier = {"ticket_unknown", "rate_limited", "unsupported_version"}
    assert named == reasons_of_the_provisioner() - later - earlier - {"hpke_key"}


def test_every_reason_of_a_failed_boot_stands_in_the_page() -> None:
    can_fail = said("enclave/boot.py", "BootFailed")
    can_fail |= said("enclave/identity", "ClockFailed")
    can_fail |= said("enclave/supervisor.py", "CustomerFailed") | said("enclave/process", "SpawnFailed")
    can_fail |= (
        said("enclave/identity", "Refused", "NsmError") | set(nsm._REASONS.values()) | {code.reason for code in NsmErrorCode}
    )
    can_fail |= said("enclave/identity", "_TryAgain", "ProvisioningFailed")
    can_fail |= (
        said("protocol/release.py", "Refused") | said("protocol/handshake.py", "Refused") | said("protocol/cose.py", "Refused")
    )
    can_fail |= {"seal_broken", "config_invalid", "os_error"} | said("net/tls.py", "TlsError")
    codes = ("busy", "unsupported_version", "challenge_gone", "refused", "revoked", "malformed", "internal")
    can_fail |= {f"provisioner_{code}" for code in codes}
    assert "tls_closed" in can_fail
    assert can_fail - quoted(prose(PROTOCOL)) == set()


def test_every_reason_of_tls_stands_in_the_page() -> None:
    documented = {word for word in quoted_in_docstring(tls_context.TlsError) if word.startswith("tls_")}
    assert documented
    assert documented - quoted(prose(PROTOCOL)) == set()


def quoted_in_docstring(of: type) -> set[str]:
    return set((of.__doc__ or "").split('"')[1::2])


def test_every_reason_of_a_client_stands_in_the_page() -> None:
    assert said("client", "Refused") - quoted(section(PROTOCOL, "### 3.1 Public evidence")) == set()


# Answers of HTTP


def answers(folder: str, *names: str) -> set[tuple[int, str]]:
    """(status, code) of the refusals that a folder makes."""
    return {
        (call.args[0].value, code)
        for _, call in calls(folder, *names)
        if len(call.args) > 1 and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, int)
        for code in texts(call.args[1])
    }


def test_every_answer_of_the_runtime_stands_in_the_page_with_its_status() -> None:
    written = {
        (int(status), code)
        for row in rows(section(PROTOCOL, "### 3.3 Answers of the runtime itself"))
        for status in row[0].split(", ")
        for code in quoted(row[1])
        if code not in {"Retry-After", "Allow"}
    }
    made = answers("enclave/traffic", "Refusal") | answers("net/http.py", "_error")
    assert made - written == set()
    assert {code for _, code in written} - {code for _, code in made} == {"bad_request"}


def test_every_answer_of_the_parents_status_stands_in_its_page() -> None:
    page = quoted(prose(RUNTIME / "parent" / "README.md"))
    made = answers("parent/status.py", "problem") | answers("parent/health.py", "problem")
    assert {"enclave_not_connected", "bad_query"} <= {code for _, code in made}
    assert {code for _, code in made} - page == set()


# Events


def test_every_event_of_the_journal_stands_in_the_page_of_the_enclave() -> None:
    events = (
        said("enclave/boot.py", "note")
        | said("enclave/run.py", "note")
        | said("enclave/log.py", "_event")
        | said("enclave/supervisor.py", "note")
    )
    events |= {f"provisioning.{event}" for event in said("enclave/identity/provisioning.py", "_note")}
    events |= {f"traffic.{event}" for event in said("enclave/traffic", "log")} - {"traffic.http_request"}  # of the request log
    events |= said("enclave/link.py", "journal", position=1) | said("enclave/identity/timekeeping.py", "_note")
    events |= said("enclave/renewal.py", "note")
    events |= said("enclave/memory.py", "_note") | said("enclave/process", "note")
    events |= said("enclave/identity/entropy.py", "note") | said("enclave/logs", "journal", position=1)
    assert {
        "live",
        "worker.ended",
        "fork_server.ended",
        "process_not_ready",
        "provisioning.opened",
        "traffic.http_refused",
        "link.lost",
    } <= events
    assert events - quoted(prose(RUNTIME / "enclave" / "README.md")) == set()


def test_every_state_that_the_enclave_reports_stands_in_both_pages() -> None:
    states = said("enclave/boot.py", "send_state") | said("enclave/booting.py", "send_state") | said("enclave/run.py", "send_state")
    assert "ready" in states
    for page in (RUNTIME / "enclave" / "README.md", PROTOCOL):
        assert states - quoted(prose(page)) == set()


def test_every_stage_of_the_boot_stands_in_the_page_and_is_begun_in_that_order() -> None:
    begun = [texts(call.args[0]) for folder in ("enclave/run.py", "enclave/boot.py") for _, call in calls(folder, "begin")]
    assert begun == [{stage} for stage in STAGES]
    table = rows(section(RUNTIME / "enclave" / "README.md", "### The boot's timeline"))
    assert [stage for row in table for stage in re.findall(r"`(\w+)`", row[0])] == list(STAGES)


def test_every_event_of_the_parents_own_stands_in_its_page() -> None:
    events = said("parent", "parent", "warn", "_show_some")
    assert {"enclave.booted", "ingress.unreachable", "foreign_cid"} <= events
    assert events - quoted(prose(RUNTIME / "parent" / "README.md")) == set()


def test_every_event_of_the_audit_log_stands_in_the_page_of_the_provisioner() -> None:
    events = said("provisioner/service.py", "_note")
    assert "released" in events
    assert events - quoted(prose(RUNTIME / "provisioner" / "README.md")) == set()
