"""The enclave's end of PROV/1: the good path in every suite, and each check of a release with its reason. What failed once stays failed."""

from dataclasses import replace
from hashlib import sha384
from typing import Any

import cbor2
import pytest

from runtime.protocol import cbor
from runtime.protocol.bundle import BUNDLE_MAX, Bundle, Secret, SecretValue
from runtime.protocol.digest import digest
from runtime.protocol.errors import LocalProtocolError, Malformed, Refused
from runtime.protocol.handshake import EnclaveHandshake, State, choose, confirm_proof, make_release
from runtime.protocol.messages import Challenge, Confirm, Evidence, Hello
from runtime.protocol.sealing import Suite, generate_key
from tests.protocol.handshakes import (
    BUNDLE,
    CHALLENGE,
    CLAIMS,
    DOCUMENT,
    END,
    LEASE_ID,
    NOW,
    RELEASE_KEY,
    ROOT,
    STRANGER,
    Proven,
    Start,
    header,
    of_suite,
    proven,
    sealing_key,
    statement,
)
from tests.protocol.prov_messages import HELLO_FIELDS

EACH = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)


def refused_release(mine: Proven, data: bytes, *, now: int = NOW, last: int = 0) -> str:
    """The reason; the handshake has failed, stays so, and has nothing to confirm."""
    handshake = mine.fresh()
    with pytest.raises((Malformed, Refused)) as refused:
        handshake.receive_release(data, key=mine.key, now=now, last_bundle_version=last)
    assert handshake.state is State.FAILED
    with pytest.raises(LocalProtocolError):
        handshake.receive_release(mine.release(), key=mine.key, now=NOW, last_bundle_version=0)
    with pytest.raises(LocalProtocolError):
        handshake.confirm("live")
    assert handshake.state is State.FAILED
    return refused.value.reason


# The good path


@EACH
def test_a_release_opens_in_every_suite(suite: Suite) -> None:
    mine = proven(of_suite(suite))
    handshake = mine.fresh()
    released = handshake.receive_release(mine.release(), key=mine.key, now=NOW, last_bundle_version=0)
    assert released.bundle == BUNDLE
    assert (released.header.lease_id, released.header.suite) == (LEASE_ID, suite)
    assert handshake.state is State.RELEASED


@EACH
def test_what_the_provisioner_makes_opens_and_is_confirmed(suite: Suite) -> None:
    mine = proven(of_suite(suite))
    release = make_release(
        release_key=RELEASE_KEY,
        header=header(suite=int(suite)),
        bundle=BUNDLE,
        hpke_public_key=mine.key.public,
        document=DOCUMENT,
        transcript=mine.transcript,
    )
    handshake = mine.fresh()
    assert handshake.receive_release(release, key=mine.key, now=NOW, last_bundle_version=5).bundle.version == 5
    confirm = Confirm.decode(handshake.confirm("live"))
    assert (confirm.lease_id, confirm.outcome) == (LEASE_ID, "live")
    assert confirm.proof == confirm_proof(b"\x5e" * 32, mine.transcript, LEASE_ID, "live")
    assert handshake.state is State.CONFIRMED


def test_a_proof_of_confirmation_is_that_of_the_specification() -> None:
    """HMAC-SHA-384(lease_key, dCBOR(["prov/1 confirm", T, lease_id, outcome])), by the definition of RFC 2104."""
    key, transcript = b"\x5e" * 32, b"\x77" * 48
    message = cbor2.dumps(["prov/1 confirm", transcript, LEASE_ID, "failed"])
    padded = key.ljust(128, b"\0")
    inner = sha384(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    expected = sha384(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    assert confirm_proof(key, transcript, LEASE_ID, "failed") == expected
    others = [(b"\x5f" * 32, transcript, LEASE_ID), (key, b"\x78" * 48, LEASE_ID), (key, transcript, bytes(16))]
    assert expected not in {confirm_proof(*other, "failed") for other in others}
    assert expected != confirm_proof(key, transcript, LEASE_ID, "live")


def test_hello_says_what_the_measured_config_says() -> None:
    handshake = EnclaveHandshake(CLAIMS)
    hello = Hello.decode(handshake.hello(ticket=b"\x0a" * 32, client_nonce=b"\x09" * 32, suites=(Suite.X_WING, Suite.P256)))
    assert (hello.versions, hello.suites, hello.purpose) == ((1,), (3, 2), "setup")
    assert (hello.ticket, hello.client_nonce) == (b"\x0a" * 32, b"\x09" * 32)
    assert (hello.config_digest, hello.boot_id, hello.runtime) == (CLAIMS.config_digest, CLAIMS.boot_id, CLAIMS.runtime)


@EACH
def test_the_document_is_asked_to_carry_nonce_transcript_and_the_key_where_it_fits(suite: Suite) -> None:
    start = of_suite(suite)
    handshake = EnclaveHandshake(CLAIMS)
    handshake.hello(ticket=start.ticket, client_nonce=start.nonce, suites=start.suites)
    handshake.receive_challenge(start.challenge.encode())
    asked = handshake.commit(hpke_public_key=start.key.public, channel=start.channel, certificate_request=None)
    assert asked.nonce == CHALLENGE.server_nonce
    assert asked.user_data == cbor2.dumps({0: "prov/1", 1: proven(start).transcript}, canonical=True)
    assert asked.public_key == (None if suite is Suite.X_WING else start.key.public)


def test_evidence_carries_the_document_byte_for_byte_with_the_keys() -> None:
    handshake = EnclaveHandshake(CLAIMS)
    handshake.hello(ticket=bytes(32), client_nonce=bytes(32), suites=(Suite.X25519,))
    handshake.receive_challenge(CHALLENGE.encode())
    handshake.commit(hpke_public_key=sealing_key().public, channel=None, certificate_request=b"request")
    evidence = Evidence.decode(handshake.evidence(DOCUMENT))
    assert (evidence.challenge_id, evidence.document) == (CHALLENGE.challenge_id, DOCUMENT)
    assert (evidence.hpke_public_key, evidence.certificate_request) == (sealing_key().public, b"request")
    assert evidence.lease_proof is None


# Challenges


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version_not_offered"),
        ({"version": 0}, "version_not_offered"),
        ({"suite": 2}, "suite_not_offered"),
        ({"suite": 0}, "suite_not_offered"),
        ({"suite": 255}, "suite_not_offered"),
        ({"version": 2, "suite": 2}, "version_not_offered"),
    ],
    ids=repr,
)
def test_a_challenge_that_chooses_what_was_not_offered_is_refused(change: dict[str, Any], reason: str) -> None:
    handshake = EnclaveHandshake(CLAIMS)
    handshake.hello(ticket=bytes(32), client_nonce=bytes(32), suites=(Suite.X_WING, Suite.X25519))
    with pytest.raises(Refused) as refused:
        handshake.receive_challenge(replace(CHALLENGE, **change).encode())
    assert refused.value.reason == reason
    assert handshake.state is State.FAILED
    with pytest.raises(LocalProtocolError):
        handshake.receive_challenge(CHALLENGE.encode())


def test_a_malformed_challenge_ends_the_handshake() -> None:
    handshake = EnclaveHandshake(CLAIMS)
    handshake.hello(ticket=bytes(32), client_nonce=bytes(32), suites=(Suite.X25519,))
    with pytest.raises(Malformed):
        handshake.receive_challenge(cbor.encode(cbor.decode(CHALLENGE.encode()) | {6: 0}))  # type: ignore[operator]  # it is a map
    assert handshake.state is State.FAILED


@pytest.mark.parametrize(
    ("versions", "suites", "allowed", "chosen"),
    [
        ([1], [3, 1], [1, 2, 3], 3),
        ([1], [3, 1], [1, 2], 1),
        ([2, 1], [9, 2], [2], 2),
        ([2], [1], [1], "unsupported_version"),
        ([1], [3], [1, 2], "suite_refused"),
        ([1], [4, 255], [1, 2, 3], "suite_refused"),
        ([1], [1], [], "suite_refused"),
    ],
    ids=repr,
)
def test_the_first_offer_that_is_allowed_is_chosen(versions: list[int], suites: list[int], allowed: list[int], chosen: Any) -> None:
    hello = Hello.decode(cbor.encode(HELLO_FIELDS | {0: versions, 1: suites}))
    if isinstance(chosen, int):
        assert choose(hello, suites=[Suite(number) for number in allowed]) == (1, Suite(chosen))
        return
    with pytest.raises(Refused) as refused:
        choose(hello, suites=[Suite(number) for number in allowed])
    assert refused.value.reason == chosen


# Releases: section 1.5


def test_a_release_key_whose_statement_no_pinned_root_signed_is_refused() -> None:
    mine = proven()
    forged = statement(root=STRANGER, key=STRANGER)
    assert refused_release(mine, mine.release(signer=STRANGER, changes={"key_statement": forged})) == "key_not_pinned"
    unpinned = proven(Start(claims=replace(CLAIMS, root_keys=())))
    assert refused_release(unpinned, unpinned.release()) == "key_not_pinned"


@pytest.mark.parametrize("now", [NOW - 86_401, END + 1])
def test_a_release_key_outside_its_time_is_refused_by_the_enclaves_own_clock(now: int) -> None:
    mine = proven()
    assert refused_release(mine, mine.release(), now=now) == "key_not_valid_now"


def test_a_release_signed_by_another_key_than_the_statement_names_is_refused() -> None:
    mine = proven()
    assert refused_release(mine, mine.release(signer=STRANGER)) == "bad_signature"
    assert refused_release(mine, mine.release(signer=ROOT)) == "bad_signature"


def test_a_release_of_another_enclaves_handshake_is_refused() -> None:
    mine, other = proven(), proven(Start(claims=replace(CLAIMS, boot_id=b"\x0e" * 16), key=generate_key(Suite.X25519)))
    assert mine.transcript != other.transcript
    assert refused_release(mine, other.release()) == "bad_signature"
    assert refused_release(mine, other.release(signed_for=mine.transcript)) == "seal_broken"
    assert refused_release(mine, mine.release(to=other.key)) == "seal_broken"


@pytest.mark.parametrize(
    "change",
    [
        {"ticket": b"\x0f" * 32},
        {"nonce": b"\x0f" * 32},
        {"channel": b"\x0f" * 32},
        {"channel": None},
        {"request": b"request"},
        {"suites": (Suite.X25519, Suite.P256)},
        {"challenge": replace(CHALLENGE, challenge_id=b"\x0f" * 16)},
        {"challenge": replace(CHALLENGE, server_nonce=b"\x0f" * 32)},
        {"challenge": replace(CHALLENGE, provisioner_id="provisioner-2")},
        {"claims": replace(CLAIMS, config_digest=b"\x0f" * 48)},
        {"claims": replace(CLAIMS, runtime="enclave-runtime/1.4.1")},
    ],
    ids=lambda change: f"{next(iter(change))} {change!r:.60}",
)
def test_a_release_of_a_handshake_that_differs_in_one_thing_is_refused(change: dict[str, Any]) -> None:
    mine, other = proven(), proven(Start(**change))
    assert refused_release(mine, other.release()) == "bad_signature"
    assert refused_release(mine, mine.release(sealed_for=other.transcript)) == "seal_broken"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "wrong_version"),
        ({"version": 0}, "wrong_version"),
        ({"suite": 2}, "wrong_suite"),
        ({"suite": 3}, "wrong_suite"),
        ({"enclave_id": "payments-test"}, "wrong_enclave_id"),
        ({"enclave_id": "payments-prod "}, "wrong_enclave_id"),
        ({"epoch": 6}, "epoch_older"),
        ({"epoch": 0}, "epoch_older"),
    ],
    ids=repr,
)
def test_a_signed_header_that_says_something_else_is_refused(change: dict[str, Any], reason: str) -> None:
    mine = proven()
    assert refused_release(mine, mine.release(changes=change)) == reason


def test_a_provisioner_that_believes_a_later_epoch_is_believed() -> None:
    mine = proven()
    released = mine.fresh().receive_release(mine.release(changes={"epoch": 8}), key=mine.key, now=NOW, last_bundle_version=0)
    assert released.header.epoch == 8


@pytest.mark.parametrize("change", [{"document": b"another document"}, {"header_digest": digest(b"another header")}], ids=repr)
def test_a_bundle_sealed_for_another_document_or_header_does_not_open(change: dict[str, Any]) -> None:
    mine = proven()
    assert refused_release(mine, mine.release(**change)) == "seal_broken"


def test_a_header_with_keys_of_a_later_version_opens_and_they_are_sealed_for() -> None:
    mine = proven()
    release = mine.release(extra={64: "later", 1000: {0: [b"x"]}})
    assert mine.fresh().receive_release(release, key=mine.key, now=NOW, last_bundle_version=0).bundle == BUNDLE
    without = cbor.encode(header().to_value())
    assert refused_release(mine, mine.release(extra={64: "later"}, header_digest=digest(without))) == "seal_broken"
    assert refused_release(mine, mine.release(extra={63: "now"})) == "malformed"


@pytest.mark.parametrize("last", [0, 4, 5])
def test_a_bundle_as_new_as_the_last_one_is_taken(last: int) -> None:
    mine = proven()
    assert mine.fresh().receive_release(mine.release(), key=mine.key, now=NOW, last_bundle_version=last).bundle.version == 5


def test_a_bundle_older_than_the_last_one_is_refused() -> None:
    mine = proven()
    assert refused_release(mine, mine.release(), last=6) == "bundle_older"


@pytest.mark.parametrize("bundle", [b"", b"\xa0", BUNDLE.encode() + b"\0", BUNDLE.encode()[:-1]], ids=repr)
def test_a_sealed_bundle_that_is_none_is_malformed(bundle: bytes) -> None:
    mine = proven()
    assert refused_release(mine, mine.release(bundle=bundle)) in {"malformed", "truncated", "trailing_bytes"}


def test_two_faults_are_reported_by_the_first_check() -> None:
    """The statement, its time, the signature, the header from version to epoch, the seal, the bundle's version."""
    mine = proven()
    faults: list[tuple[str, dict[str, Any]]] = [
        ("key_not_pinned", {"changes": {"key_statement": statement(root=STRANGER)}}),
        ("bad_signature", {"signer": STRANGER}),
        ("wrong_version", {"changes": {"version": 2}}),
        ("wrong_suite", {"changes": {"suite": 2}}),
        ("wrong_enclave_id", {"changes": {"enclave_id": "other"}}),
        ("epoch_older", {"changes": {"epoch": 1}}),
        ("seal_broken", {"document": b"another"}),
    ]
    for place, (reason, fault) in enumerate(faults):
        assert refused_release(mine, mine.release(**fault), last=6) == reason
        for _, later in faults[place + 1 :]:
            both = fault | later | {"changes": later.get("changes", {}) | fault.get("changes", {})}
            assert refused_release(mine, mine.release(**both), last=6) == reason
    late = mine.release(signer=STRANGER, changes={"version": 2})
    assert refused_release(mine, late, now=END + 1) == "key_not_valid_now"


def test_the_provisioner_does_not_make_a_bundle_that_no_enclave_would_read() -> None:
    mine = proven()
    large = Secret(delivery="env", value=SecretValue(bytes(BUNDLE_MAX)))
    bundle = Bundle(version=1, lease_key=SecretValue(bytes(32)), secrets={"A": large}, identities=())
    with pytest.raises(LocalProtocolError):
        make_release(
            release_key=RELEASE_KEY,
            header=header(),
            bundle=bundle,
            hpke_public_key=mine.key.public,
            document=DOCUMENT,
            transcript=mine.transcript,
        )


def test_a_challenge_reads_back_from_the_handshake() -> None:
    handshake = EnclaveHandshake(CLAIMS)
    handshake.hello(ticket=bytes(32), client_nonce=bytes(32), suites=(Suite.X25519,))
    assert handshake.receive_challenge(CHALLENGE.encode()) == Challenge.decode(CHALLENGE.encode())
