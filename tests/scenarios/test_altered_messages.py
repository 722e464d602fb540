"""A man in the middle with the provisioner's own TLS key, on a channel that is not bound to TLS, alters each field of each message.

Signature, transcript and seal must then hold alone. Whatever he does, the enclave has its true secrets or ends with a reason that says
why, and the provisioner has written at most one lease for one ticket.
"""

from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from trio.testing import MockClock

from runtime.enclave.identity.certificates import make_tls_key
from runtime.protocol import cbor
from runtime.protocol.release import KeyStatement
from runtime.protocol.sealing import Suite, generate_key
from runtime.simulator.stolen_key import Name, untouched
from tests.scenarios.leaks import find_leaks, pieces
from tests.scenarios.middle import Edit, altering, drop, flip, flipped, header, payload, play, put, release_part
from tests.scenarios.world import START, World

ANOTHER_KEY = generate_key(Suite.X_WING).public
ANOTHER_REQUEST = make_tls_key(("app.test",)).request


@dataclass(frozen=True, kw_only=True)
class Case:
    """`reason` is how the boot ends, None with its true secrets; `refused` is the last reason in the audit log."""

    message: Name
    what: str
    edit: Edit
    reason: str | None
    refused: str | None = None

    def __str__(self) -> str:
        return f"{self.message}: {self.what}"


def _garbage(_: bytes) -> bytes:
    return b"\xff" * 40


HELLO = (
    ("versions, one more", put(0, [1, 2]), "provisioner_refused", "transcript_mismatch"),
    ("versions, an unknown one alone", put(0, [2]), "provisioner_unsupported_version", "unsupported_version"),
    ("suites, the weakest alone", put(1, [1]), "provisioner_refused", "transcript_mismatch"),
    ("suites, another order", put(1, [1, 2, 3]), "provisioner_refused", "transcript_mismatch"),
    ("suites, an unknown one alone", put(1, [9]), "provisioner_refused", "suite_refused"),
    ("ticket", flip(2), "provisioner_challenge_gone", "ticket_unknown"),
    ("client nonce", flip(3), "provisioner_refused", "transcript_mismatch"),
    ("config digest", flip(4), "provisioner_refused", "transcript_mismatch"),
    ("boot id", flip(5), "provisioner_refused", "transcript_mismatch"),
    ("purpose renew without a lease", put(6, "renew"), "provisioner_malformed", "malformed"),
    ("purpose renew", lambda data: put(8, bytes(16))(put(6, "renew")(data)), "provisioner_refused", "lease_gone"),
    ("purpose unknown", put(6, "steal"), "provisioner_malformed", "malformed"),
    ("runtime", put(7, "enclave-runtime/0.0.1"), "provisioner_refused", "transcript_mismatch"),
    ("a lease with purpose setup", put(8, bytes(16)), "provisioner_malformed", "malformed"),
    ("an unknown field", put(9, 0), "provisioner_malformed", "malformed"),
    ("garbage", _garbage, "provisioner_malformed", "malformed"),
)
CHALLENGE = (
    ("version", put(0, 2), "version_not_offered", None),
    ("suite, another that was offered", put(1, 1), "provisioner_refused", "transcript_mismatch"),
    ("suite, one that was not offered", put(1, 9), "suite_not_offered", None),
    ("challenge id", flip(2), "provisioner_challenge_gone", "challenge_unknown"),
    ("server nonce", flip(3), "provisioner_refused", "nonce_mismatch"),
    ("lifetime, shorter", put(4, 1), None, None),
    ("lifetime, too long", put(4, 61), "malformed", None),
    ("provisioner id", put(5, "provisioner-2"), "provisioner_refused", "transcript_mismatch"),
    ("an unknown field", put(6, 0), "malformed", None),
    ("a field less", drop(4), "malformed", None),
    ("garbage", _garbage, "cbor_reserved", None),
)
EVIDENCE = (
    ("challenge id", flip(0), "provisioner_challenge_gone", "challenge_unknown"),
    ("document, its signature", flip(1, -1), "provisioner_refused", "doc_signature"),
    ("document, its payload", flip(1, 60), "provisioner_refused", "doc_syntax"),
    ("document, none", put(1, b""), "provisioner_malformed", "malformed"),
    ("sealing key, the attacker's", put(2, ANOTHER_KEY), "provisioner_refused", "transcript_mismatch"),
    ("sealing key, of another suite", put(2, b"\x09" + bytes(31)), "provisioner_refused", "transcript_mismatch"),
    ("certificate request, the attacker's", put(3, ANOTHER_REQUEST), "provisioner_refused", "transcript_mismatch"),
    ("certificate request, none", drop(3), "provisioner_refused", "transcript_mismatch"),
    ("a proof of a lease that there is none of", put(4, bytes(48)), "provisioner_refused", "phase_not_setup"),
    ("an unknown field", put(5, 0), "provisioner_malformed", "malformed"),
    ("garbage", _garbage, "provisioner_malformed", "malformed"),
)
_ATTACKER, _ATTACKER_ROOT = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
_STATEMENT = KeyStatement(
    kid="attacker",
    public_key=_ATTACKER.public_key().public_bytes_raw(),
    not_before=int(START.timestamp()) - 3600,
    not_after=int(START.timestamp()) + 3600,
).sign(_ATTACKER_ROOT)
RELEASE = (
    ("algorithm", release_part(0, lambda _: cbor.encode({1: -7})), "malformed", None),
    ("unprotected headers", release_part(1, lambda _: {4: b"kid"}), "malformed", None),
    ("signature", release_part(3, flipped), "bad_signature", None),
    ("signature, too short", release_part(3, lambda signature: signature[:-1]), "malformed", None),
    ("header, version", header(0, 2), "bad_signature", None),
    ("header, suite", header(1, 1), "bad_signature", None),
    ("header, enclave id", header(2, "another"), "bad_signature", None),
    ("header, lease id", header(3, bytes(16)), "bad_signature", None),
    ("header, issued", header(4, 0), "bad_signature", None),
    ("header, lease seconds", header(5, 1 << 40), "bad_signature", None),
    ("header, renew after", header(6, 1 << 40), "bad_signature", None),
    ("header, epoch", header(7, 99), "bad_signature", None),
    ("header, the attacker's key", header(8, cbor.decode(_STATEMENT)), "key_not_pinned", None),
    ("header, no key", header(8, None), "malformed", None),
    ("header, an ignored field", header(64, "new"), "bad_signature", None),
    ("header, an unknown field", header(9, "new"), "malformed", None),
    ("sealed bundle", payload(lambda fields, sealed: (fields, flipped(sealed, -1))), "bad_signature", None),
    ("sealed bundle, none", payload(lambda fields, _: (fields, b"")), "bad_signature", None),
    ("garbage", _garbage, "cbor_reserved", None),
    ("nothing", lambda _: b"", "truncated", None),
)
CONFIRM = (
    ("lease id", flip(0), None, "lease_unknown"),
    ("outcome", put(1, "failed"), None, "confirm_proof"),
    ("outcome, unknown", put(1, "dead"), None, "malformed"),
    ("proof", flip(2), None, "confirm_proof"),
    ("garbage", _garbage, None, "malformed"),
)
ERROR = (
    ("code busy, to keep the enclave asking", put(0, "busy"), "provisioner_busy", "record_inactive"),
    ("code refused", put(0, "refused"), "provisioner_refused", "record_inactive"),
    ("code unknown", put(0, "nonsense"), "provisioner_unintelligible", "record_inactive"),
    ("request id", put(1, "another"), "provisioner_revoked", "record_inactive"),
    ("retry after", put(2, 86400), "provisioner_revoked", "record_inactive"),
    ("busy, and come back in ten minutes", lambda data: put(2, 600)(put(0, "busy")(data)), "provisioner_busy", "record_inactive"),
    ("garbage", _garbage, "provisioner_unintelligible", "record_inactive"),
)
TABLE: dict[Name, tuple[tuple[str, Edit, str | None, str | None], ...]] = {
    "hello": HELLO,
    "challenge": CHALLENGE,
    "evidence": EVIDENCE,
    "release": RELEASE,
    "confirm": CONFIRM,
    "error": ERROR,
}
CASES = [
    Case(message=message, what=what, edit=edit, reason=reason, refused=refused)
    for message, rows in TABLE.items()
    for what, edit, reason, refused in rows
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_an_altered_field_gives_the_true_secrets_or_a_reason_and_never_two_leases(
    mock_clock: MockClock, world: World, case: Case
) -> None:
    played = await play(world, altering(case.message, case.edit), is_revoked=case.message == "error")
    assert played.middle.messages(case.message), "the message that was to be altered was never sent"
    assert played.booted.reason == case.reason
    if case.reason is None:
        assert played.booted.values() == {name: secret.value.reveal() for name, secret in world.secrets.items()}
    refusals = world.refusals()
    assert (refusals[-1] if refusals else None) == case.refused
    world.require_nothing_released_twice()
    assert len(world.leases()) == (1 if case.message in ("release", "confirm") or case.reason is None else 0)
    assert played.enclave.parent.connections("egress") <= 8


@pytest.mark.parametrize("case", [case for case in CASES if case.message == "confirm"], ids=str)
async def test_an_altered_confirm_moves_no_lease(mock_clock: MockClock, world: World, case: Case) -> None:
    await play(world, altering("confirm", case.edit))
    assert [lease["state"] for lease in world.leases()] == ["issued"]


async def test_whoever_reads_every_message_in_the_clear_learns_no_secret(mock_clock: MockClock, world: World) -> None:
    played = await play(world, untouched)
    read = [seen.data for seen in played.middle.seen]
    assert [seen.name for seen in played.middle.seen] == ["hello", "challenge", "evidence", "release", "confirm", "confirmed"]
    assert played.booted.provisioned is not None
    bundle = played.booted.provisioned.released.bundle
    hidden = {
        **played.booted.values(),
        "lease key": bundle.lease_key.reveal(),
        **pieces("bundle", replace(bundle, identities=()).encode()),  # whose key stands in the request for the certificate
    }
    assert find_leaks(read, hidden) == []
    assert find_leaks(read, {"boot id": played.enclave.boot_id}) == ["boot id"]
    assert [lease["state"] for lease in world.leases()] == ["live"]


async def test_on_a_bound_channel_a_man_in_the_middle_who_alters_nothing_is_found_out(mock_clock: MockClock, world: World) -> None:
    played = await play(world, untouched, measured="exporter")
    assert played.booted.reason == "provisioner_refused"
    assert world.refusals() == ["transcript_mismatch"]
    assert world.leases() == []


@pytest.mark.parametrize(
    ("measured", "recorded"), [("exporter", "none"), ("none", "exporter")], ids=["the record alone", "the config alone"]
)
async def test_an_unbound_channel_that_only_one_side_agrees_to_is_refused(
    mock_clock: MockClock, world: World, measured: str, recorded: str
) -> None:
    played = await play(world, untouched, measured=measured, channel=recorded)
    assert played.booted.reason == "provisioner_refused"
    assert world.refusals() == ["transcript_mismatch"]
