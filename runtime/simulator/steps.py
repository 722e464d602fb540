"""What a simulation shows: who proved what to whom, one legible line a step, or one JSON object a line."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

DIGEST_SHOWN = 12
"""Hex digits of a digest that a person compares."""

EXPECTED = (
    "provisioner.listening",
    "image.measured",
    "parent.ready",
    "boot.started",
    "nsm.found",
    "entropy.seeded",
    "clock.left_alone",
    "parent.met",
    "config.measured",
    "provisioning.challenged",
    "provisioner.released",
    "provisioning.opened",
    "live",
    "local_api.open",
    "ingress.open",
    "process_ready",
    "enclave.ready",
    "client.attested",
    "client.answered",
)
"""The steps that a whole run has, in the order in which they are taken."""


EXPECTED_OF_MACHINE = (
    *("provisioner.listening", "image.measured", "parent.ready", "machine.started", "machine.heartbeat"),
    *(name for name in EXPECTED[3:] if name != "clock.left_alone"),
    *("enclave.drained", "machine.off"),
)
"""Those of a virtual machine, whose clock is its own."""


def short(digest: bytes | str) -> str:
    """The beginning of a digest."""
    text = digest.hex() if isinstance(digest, bytes) else digest
    return text[:DIGEST_SHOWN] + "…" if len(text) > DIGEST_SHOWN else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened. `seconds` count from the start of the simulation."""

    name: str
    who: str
    text: str
    seconds: float
    facts: Mapping[str, object]


class Steps:
    """Shows steps as they come and knows which were seen."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self._as_json = as_json
        self._stream = stream or sys.stdout
        self._seen: set[str] = set()

    def show(self, step: Step) -> None:
        """One step."""
        self._seen.add(step.name)
        if self._as_json:
            fields = {"step": step.name, "who": step.who, "text": step.text, "seconds": round(step.seconds, 3), **step.facts}
            self._write(json.dumps(fields))
        else:
            self._write(f"{step.seconds:7.2f} s  {step.who:<12} {step.text}")

    def say(self, text: str) -> None:
        """Something for people only."""
        if not self._as_json:
            self._write(text)

    def tell(self, name: str, text: str, value: str) -> None:
        """A result: words for people, a step with `value` for machines."""
        self._write(json.dumps({"step": name, "text": value}) if self._as_json else text)

    def missing(self, *, without_ingress: bool = False, expected: Sequence[str] = EXPECTED) -> list[str]:
        """The steps of a whole run that did not happen."""
        skipped = {"ingress.open", "client.attested", "client.answered"} if without_ingress else set()
        return [name for name in expected if name not in self._seen and name not in skipped]

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


_ENCLAVE_TEXTS = {
    "nsm.found": "NSM {module}",
    "entropy.seeded": "kernel's generator seeded from the NSM ({credited} bytes credited); its hardware source: {generator}",
    "clock.left_alone": "this machine's clock is the host's and stays as it is: what keeping it would change is kept in memory",
    "clock.stepped": "clock put right by {seconds_us} µs, to within {error_us} µs of the NSM's",
    "clock.good": "clock agrees with the NSM's: {offset_us} µs off, give or take {error_us} µs",
    "memory.warn": "memory short: {used_percent} % of {total_mib} MiB used",
    "memory.shed": "memory nearly gone: {used_percent} % of {total_mib} MiB used, no more requests are let in",
    "clock.stale": "clock not good enough, so not ready: {reason}",
    "parent.met": "welcomed by the parent on {instance}, which holds a ticket and no key",
    "config.measured": "config {config} of enclave {enclave!r}, epoch {epoch}, measured into PCR 16",
    "provisioning.challenged": "challenged by {provisioner}, suite {suite}; sealing key made here and measured into PCR 17",
    "provisioning.opened": "release verified against the pinned root key and opened: lease {lease}",
    "live": "live: {secrets} secrets in hand, PCR 18 locked before any customer process",
    "local_api.open": "local attestation API at {at}",
    "egress.open": "ways out: {rules} rules, a resolver at 127.0.0.1:53",
    "ingress.open": "TLS for {names} ends here, mode {mode}",
    "process_started": "customer process {process!r} started as pid {pid}",
    "process_ready": "customer process {process!r} is ready",
    "provisioning.attempt_failed": "attempt {attempt} failed: {reason}",
    "provisioning.evidence_resent": "evidence sent again, resend {resend}",
}


def enclave_text(event: str, fields: Mapping[str, object]) -> str | None:
    """A journal event in words; None for one that is not a step."""
    if event == "boot.started":
        return (
            "PID 1 of its own pid, mount, network, ipc and uts namespaces"
            if fields.get("pid_one")
            else "a child subreaper in this machine's own namespaces, which forbids new ones"
        )
    if event == "ingress.open" and fields.get("mode") == "passthrough":
        return "clients' TLS goes through to the customer process, mode passthrough"
    text = _ENCLAVE_TEXTS.get(event)
    if text is None:
        return None
    shown = {
        name: short(str(value)) if name in ("lease", "config") else value
        for name, value in fields.items()
        if isinstance(value, str | int)
    }
    return text.format_map(_Lenient(shown))


class _Lenient(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return "?"
