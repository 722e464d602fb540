"""Evidence that commits to something else than what this enclave and this provisioner said to each other: refused, nothing released."""

from typing import Any

import pytest

from runtime.protocol.binding import encode_app, encode_public
from runtime.protocol.measurements import KEY_PCR, key_commitment
from runtime.protocol.messages import Challenge, Evidence, Hello
from runtime.protocol.sealing import Suite, generate_key
from tests.provisioner.refusals import refuse_evidence
from tests.support.prov import CONFIG_DIGEST, OTHER_IMAGE, Attempt, Bench, record, reference


def attested(attempt: Attempt, **changes: Any) -> bytes:
    """Evidence whose document was asked for with something else than the handshake wants."""
    attempt.commit()
    asked = {"nonce": attempt.asked.nonce, "user_data": attempt.asked.user_data, "public_key": attempt.asked.public_key}
    attempt.message = attempt.handshake.evidence(attempt.boot.attest(**asked | changes))
    return attempt.message


# What the document commits to


@pytest.mark.parametrize("nonce", [None, b"", bytes(32)], ids=repr)
def test_a_document_for_another_nonce(bench: Bench, nonce: bytes | None) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    attested(attempt, nonce=nonce)
    refuse_evidence(attempt, code="refused", reason="nonce_mismatch")


@pytest.mark.parametrize(
    "user_data",
    [
        None,
        b"",
        encode_app(b"prov/1"),
        encode_public(spki_digest=bytes(48), exporter=bytes(32), config_digest=CONFIG_DIGEST),
        encode_public(spki_digest=bytes(48), exporter=None, config_digest=CONFIG_DIGEST),
    ],
    ids=["null", "empty", "an application's", "a client's", "a client's that may be cached"],
)
def test_a_document_with_another_binding_is_no_evidence(bench: Bench, user_data: bytes | None) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    attested(attempt, user_data=user_data)
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


def test_an_application_cannot_wrap_the_right_binding_in_its_own(bench: Bench) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    attempt.commit()
    document = attempt.boot.attest(nonce=attempt.asked.nonce, user_data=encode_app(attempt.asked.user_data))
    attempt.message = attempt.handshake.evidence(document)
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


@pytest.mark.parametrize("public_key", [None, b"", bytes(32)], ids=repr)
def test_a_document_that_carries_another_key_than_the_message(bench: Bench, public_key: bytes | None) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    attested(attempt, public_key=public_key)
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


def test_a_document_that_carries_a_key_where_the_sealing_key_does_not_fit(bench: Bench) -> None:
    attempt = bench.boot().attempt(suites=(Suite.X_WING,))
    attempt.greet()
    attested(attempt, public_key=bytes(32))
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
def test_a_courier_cannot_put_a_key_of_its_own_into_the_message(bench: Bench, suite: Suite) -> None:
    attempt = bench.boot().attempt(suites=(suite,))
    message = Evidence.decode(attempt.ready().message)
    stolen = Evidence(challenge_id=message.challenge_id, document=message.document, hpke_public_key=generate_key(suite).public)
    refuse_evidence(attempt, message=stolen.encode(), code="refused", reason="transcript_mismatch")


@pytest.mark.parametrize("key", [b"\0", bytes(31), bytes(33), b"\x04" + bytes(64)], ids=len)
def test_a_key_that_is_none_of_the_suite(bench: Bench, key: bytes) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    attempt.evidence(key=key)
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


def test_a_key_of_small_order_gets_no_lease_and_spends_no_ticket(bench: Bench) -> None:
    """Everything about the evidence holds; the key alone would make a seal that anyone opens."""
    boot = bench.boot()
    boot.register(KEY_PCR, key_commitment(bytes(32)))
    attempt = boot.attempt()
    attempt.greet()
    attempt.evidence(key=bytes(32))
    refuse_evidence(attempt, code="refused", reason="hpke_key")
    second = bench.boot().attempt(ticket=attempt.ticket)
    second.opened(second.run())


def test_a_certificate_request_that_was_added_taken_away_or_exchanged(bench: Bench) -> None:
    for names, request in ((("pay.example.com",), None), ((), b"request"), (("pay.example.com",), b"request")):
        attempt = bench.boot(names=names).attempt()
        message = Evidence.decode(attempt.ready().message)
        altered = Evidence(
            challenge_id=message.challenge_id,
            document=message.document,
            hpke_public_key=message.hpke_public_key,
            certificate_request=request,
        )
        refuse_evidence(attempt, message=altered.encode(), code="refused", reason="transcript_mismatch")


# What went between


HELLO_CHANGES: dict[str, dict[str, Any]] = {
    "suites in another order": {"suites": (1, 2)},
    "a suite less": {"suites": (1,)},
    "a suite more": {"suites": (2, 1, 3)},
    "another nonce": {"client_nonce": bytes(32)},
    "another boot": {"boot_id": bytes(16)},
    "another runtime": {"runtime": "enclave-runtime/9"},
    "another version offered": {"versions": (1, 2)},
    "another config": {"config_digest": bytes(48)},
}


@pytest.mark.parametrize("change", HELLO_CHANGES.values(), ids=list(HELLO_CHANGES))
def test_a_hello_that_was_altered_on_its_way(bench: Bench, change: dict[str, Any]) -> None:
    """The suite that is chosen is the enclave's to take in every case; what it signed with is not what it said."""
    attempt = bench.boot().attempt(suites=(Suite.P256, Suite.X25519))
    own = Hello.decode(attempt.hello())
    fields = {name: getattr(own, name) for name in Hello.__slots__}
    answer = bench.service.hello(Hello(**fields | change).encode(), bench.caller(attempt.connection))
    attempt.challenge = attempt.handshake.receive_challenge(answer)
    attempt.evidence()
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


CHALLENGE_CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "suite": ({"suite": int(Suite.P256)}, "transcript_mismatch"),
    "nonce": ({"server_nonce": bytes(32)}, "nonce_mismatch"),
    "provisioner": ({"provisioner_id": "provisioner-2"}, "transcript_mismatch"),
}


@pytest.mark.parametrize(("change", "reason"), CHALLENGE_CHANGES.values(), ids=list(CHALLENGE_CHANGES))
def test_a_challenge_that_was_altered_on_its_way(bench: Bench, change: dict[str, Any], reason: str) -> None:
    attempt = bench.boot().attempt(suites=(Suite.X25519, Suite.P256))
    true = Challenge.decode(bench.service.hello(attempt.hello(), bench.caller(attempt.connection)))
    fields = {name: getattr(true, name) for name in Challenge.__slots__}
    attempt.challenge = attempt.handshake.receive_challenge(Challenge(**fields | change).encode())
    attempt.evidence()
    refuse_evidence(attempt, code="refused", reason=reason)


def test_evidence_on_another_connection_than_it_is_bound_to(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    refuse_evidence(attempt, connection=bench.connect(), code="refused", reason="transcript_mismatch")


@pytest.mark.parametrize("record_says", ["exporter", "none"])
def test_record_and_config_must_agree_about_the_channel(bench: Bench, record_says: str) -> None:
    bench.put(channel=record_says)
    attempt = bench.boot().attempt(channel=record_says == "none").ready()
    refuse_evidence(attempt, code="refused", reason="transcript_mismatch")


def test_one_enclaves_document_for_anothers_challenge(bench: Bench) -> None:
    """Both are genuine and both are open; only what each committed to tells them apart."""
    bench.store.put_record(record(enclave_id="billing", reference=reference(OTHER_IMAGE)))
    one = bench.boot().attempt().ready()
    other = bench.boot(enclave_id="billing", pcrs=OTHER_IMAGE).attempt(ticket=bench.ticket(enclave_id="billing")).ready()
    document = Evidence.decode(other.message).document
    crossed = Evidence(challenge_id=one.challenge.challenge_id, document=document, hpke_public_key=b"\x09" * 32)
    refuse_evidence(one, message=crossed.encode(), code="refused", reason="nonce_mismatch")
    other.opened(other.prove())


def test_a_ticket_of_another_enclave_opens_that_enclaves_record_alone(bench: Bench) -> None:
    """Whose secrets are asked for is the ticket's to say, and only the image that its record names gets them."""
    bench.store.put_record(record(enclave_id="billing", reference=reference(OTHER_IMAGE)))
    attempt = bench.boot().attempt(ticket=bench.ticket(enclave_id="billing")).ready()
    refuse_evidence(attempt, code="refused", reason="measurement_unknown")
