"""The good path of PROV/1 at the provisioner, from a ticket to a confirmed lease, in every suite, and what the audit log says of it."""

import pytest
from cryptography import x509

from runtime.protocol.bundle import Secret, SecretValue
from runtime.protocol.errors import Refused
from runtime.protocol.messages import Challenge, Hello, TicketReply, TicketRequest
from runtime.protocol.sealing import Suite
from tests.provisioner.refusals import refusal
from tests.support.prov import (
    ADDRESS,
    CONFIG_DIGEST,
    ENCLAVE_ID,
    EPOCH,
    INSTANCE,
    MODULE_ID,
    NAMES,
    OTHER_IMAGE,
    PARENT_KEY,
    PROVISIONER_ID,
    SECRET,
    Bench,
    ground,
    reference,
)

EACH = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)


@EACH
@pytest.mark.parametrize("names", [(), NAMES], ids=["without a certificate", "with one"])
def test_measured_code_gets_its_secrets_and_confirms(bench: Bench, suite: Suite, names: tuple[str, ...]) -> None:
    attempt = bench.boot(names=names).attempt(suites=(suite,))
    released = attempt.opened(attempt.run())
    assert released.bundle.secrets == {"API_KEY": Secret(delivery="env", value=SecretValue(SECRET))}
    assert (released.header.enclave_id, released.header.epoch, released.header.suite) == (ENCLAVE_ID, EPOCH, suite)
    assert [identity.names for identity in released.bundle.identities] == ([names] if names else [])
    assert bench.leases() == [(ENCLAVE_ID, "issued")]
    attempt.confirm("live")
    assert bench.leases() == [(ENCLAVE_ID, "live")]
    assert bench.challenge_state(attempt.challenge.challenge_id) == "released"
    assert [entry.event for entry in bench.audited()] == ["ticket", "hello", "released", "confirmed"]
    assert not any(entry.alarm or entry.reason for entry in bench.audited())


def test_the_certificate_is_for_the_key_that_was_made_inside(bench: Bench) -> None:
    attempt = bench.boot(names=NAMES).attempt()
    identity = attempt.opened(attempt.run()).bundle.identities[0]
    leaf, issuer = (x509.load_der_x509_certificate(der) for der in identity.chain)
    assert attempt.boot.tls_key is not None
    assert leaf.public_key() == attempt.boot.tls_key.private.public_key()
    leaf.verify_directly_issued_by(issuer)
    assert issuer == ground().keys.issuing_ca.certificate
    assert identity.key is None


def test_a_ticket_is_thirty_two_fresh_bytes_for_ten_minutes(bench: Bench) -> None:
    request = TicketRequest(enclave_id=ENCLAVE_ID, instance_id=INSTANCE).encode()
    replies = [TicketReply.decode(bench.service.ticket(request, bench.caller(key_digest=PARENT_KEY))) for _ in range(3)]
    assert len({reply.ticket for reply in replies}) == 3
    assert {reply.lifetime for reply in replies} == {600}
    with bench.store.transaction() as db:
        kept = [bytes(row["digest"]) for row in db.execute("SELECT digest FROM tickets")]
    assert not {reply.ticket for reply in replies} & set(kept)  # the ticket itself is kept nowhere


def test_a_challenge_is_fresh_and_says_who_asks(bench: Bench) -> None:
    boot, challenges = bench.boot(), []
    for _ in range(3):
        attempt = boot.attempt(suites=(Suite.P256,))
        challenges.append(attempt.greet())
    assert len({challenge.challenge_id for challenge in challenges}) == 3
    assert len({challenge.server_nonce for challenge in challenges}) == 3
    assert {(found.version, found.suite, found.lifetime, found.provisioner_id) for found in challenges} == {
        (1, 2, 60, PROVISIONER_ID)
    }


def test_the_first_offered_suite_that_the_record_allows_is_chosen(bench: Bench) -> None:
    bench.put(suites=(2, 1))
    boot = bench.boot()
    assert boot.attempt(suites=(Suite.X_WING, Suite.X25519, Suite.P256)).greet().suite == Suite.X25519
    assert boot.attempt(suites=(Suite.P256, Suite.X25519)).greet().suite == Suite.P256


def test_the_lease_says_what_the_record_says(bench: Bench) -> None:
    bench.put(lease_seconds=7200, renew_after_seconds=1800)
    attempt = bench.boot().attempt()
    header = attempt.opened(attempt.run()).header
    assert (header.issued, header.lease_seconds, header.renew_after_seconds) == (int(bench.clock()), 7200, 1800)


def test_the_epoch_is_of_the_build_that_matched_and_must_reach_the_floor(bench: Bench) -> None:
    """A record knows two builds; each gets its own epoch, so that an enclave can tell that it is older than believed."""
    both = reference(OTHER_IMAGE, epoch=9).measurements[0]
    one = reference().measurements[0]
    bench.put(reference=type(bench.record.reference)(measurements=(one, type(both)(name="next", pcrs=both.pcrs, epoch=9))))
    older, newer = bench.boot().attempt(), bench.boot(pcrs=OTHER_IMAGE).attempt()
    assert older.opened(older.run()).header.epoch == EPOCH
    assert newer.opened(newer.run()).header.epoch == 9
    bench.put(epoch_floor=9)
    again = bench.boot(pcrs=OTHER_IMAGE).attempt()
    assert again.opened(again.run()).header.epoch == 9


def test_bundle_versions_go_up_by_one_also_over_a_changed_record(bench: Bench) -> None:
    versions = []
    for _ in range(3):
        attempt = bench.boot().attempt()
        versions.append(attempt.opened(attempt.run()).bundle.version)
        bench.put(lease_seconds=bench.record.lease_seconds + 1)
    assert versions == [1, 2, 3]


def test_each_lease_has_an_id_and_a_key_of_its_own(bench: Bench) -> None:
    attempts = [bench.boot().attempt() for _ in range(2)]
    released = [attempt.opened(attempt.run()) for attempt in attempts]
    assert released[0].header.lease_id != released[1].header.lease_id
    assert released[0].bundle.lease_key != released[1].bundle.lease_key


def test_where_record_and_config_both_say_so_no_connection_is_bound(bench: Bench) -> None:
    bench.put(channel="none")
    attempt = bench.boot().attempt(channel=False)
    assert attempt.opened(attempt.ready().prove(connection=bench.connect())).header.enclave_id == ENCLAVE_ID


def test_host_parameters_that_the_record_names_are_measured(bench: Bench) -> None:
    bench.put(host_parameters={"zone": "a"})
    attempt = bench.boot(host_parameters={"zone": "a"}).attempt()
    assert attempt.opened(attempt.run()).header.enclave_id == ENCLAVE_ID


def test_the_audit_log_tells_the_whole_story(bench: Bench) -> None:
    attempt = bench.boot().attempt()
    released = attempt.opened(attempt.run())
    attempt.confirm("failed")
    ticket, hello, release, confirmed = bench.audited()
    assert {entry.enclave_id for entry in bench.audited()} == {ENCLAVE_ID}
    assert (ticket.detail["instance_id"], ticket.detail["parent_key"]) == (INSTANCE, PARENT_KEY)
    assert (hello.detail["boot_id"], hello.detail["suite"]) == (bytes(range(16)).hex(), "X25519")
    assert hello.detail["challenge_id"] == release.detail["challenge_id"] == attempt.challenge.challenge_id.hex()
    assert (release.detail["module_id"], release.detail["source_address"]) == (MODULE_ID, "known")
    assert release.detail["lease_id"] == confirmed.detail["lease_id"] == released.header.lease_id.hex()
    assert confirmed.detail["outcome"] == "failed"
    assert len({entry.detail["request_id"] for entry in bench.audited()}) == 4
    assert {entry.detail["address"] for entry in bench.audited()} == {ADDRESS}


def test_the_audit_log_holds_no_secret(bench: Bench) -> None:
    attempt = bench.boot().attempt()
    released = attempt.opened(attempt.run())
    attempt.confirm()
    refusal(bench, lambda: bench.service.hello(b"", bench.caller()))
    shown = repr(bench.audited())
    for secret in (SECRET, attempt.ticket, released.bundle.lease_key.reveal()):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_an_address_that_the_record_does_not_know_is_recorded_and_not_refused(bench: Bench) -> None:
    attempt = bench.boot().attempt().ready()
    attempt.prove(address="203.0.113.9")
    assert bench.audited()[-1].detail["source_address"] == "unknown"
    assert bench.audited()[-1].detail["address"] == "203.0.113.9"


def test_hello_and_challenge_are_kept_as_they_were_said(bench: Bench) -> None:
    """What is judged later is what was said then, not what the evidence claims was said."""
    attempt = bench.boot().attempt(suites=(Suite.X_WING, Suite.X25519))
    attempt.greet()
    opened = bench.store.consume_challenge(attempt.challenge.challenge_id)
    assert isinstance(opened.hello, Hello)
    assert (opened.hello.suites, opened.hello.config_digest) == ((3, 1), CONFIG_DIGEST)
    assert opened.challenge == Challenge.decode(attempt.challenge.encode())
    with pytest.raises(Refused):
        bench.store.consume_challenge(attempt.challenge.challenge_id)
