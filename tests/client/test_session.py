"""A client asks a server for evidence, and believes it only about the connection that it is on."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from runtime.client.session import BODY_MAX, DOCUMENT_MAX, Target, open_session
from runtime.net.http import Response
from runtime.protocol.binding import PUBLIC_EXPORTER_LABEL, encode_app, encode_prov
from runtime.protocol.errors import ProtocolError
from runtime.simulator.pki import make_root
from runtime.verifier.appraise import AppraisalFailed
from runtime.verifier.reference import ANY_MEASUREMENT, Measurement, ReferenceValues
from runtime.verifier.roots import aws_root
from tests.client.scripted import (
    CONFIG_DIGEST,
    NAME,
    NONCE,
    NOW,
    REFERENCE,
    REGISTERS,
    Asked,
    Scripted,
    connecting,
    found,
    key_digest,
    serving,
    session,
)
from tests.scenarios.waiting import skip_waiting
from tests.support.certificates import make_ca


async def refusal(scripted: Scripted, **given: object) -> str:
    """The reason of the protocol's error that opening a session ends with."""
    async with serving(scripted):
        with pytest.raises(ProtocolError) as refused:
            async with connecting(scripted, **given):  # type: ignore[arg-type] # passed on as it is
                raise AssertionError("a session was opened")
    return refused.value.reason


async def mismatches(scripted: Scripted, **given: object) -> set[str]:
    """The codes for which the document is refused."""
    async with serving(scripted):
        with pytest.raises(AppraisalFailed) as failed:
            async with connecting(scripted, **given):  # type: ignore[arg-type] # passed on as it is
                raise AssertionError("a session was opened")
    return {mismatch.code.value for mismatch in failed.value.mismatches}


async def test_evidence_about_this_connection_opens_a_session_for_requests_on_it() -> None:
    scripted = Scripted()
    async with session(scripted) as opened:
        attested = opened.attested
        assert attested.result.reference == REFERENCE.measurements[0]
        assert (attested.config_digest, attested.spki_digest) == (CONFIG_DIGEST, key_digest(scripted.identity))
        assert attested.tls_version == "1.3"
        assert (await opened.request("GET", "/")).body == b"hello"
        assert (await opened.request("POST", "/orders", body=b"one")).status == 200
    evidence, *others = scripted.asked
    assert (evidence.method, evidence.path, evidence.header("accept")) == ("GET", "/.well-known/attestation", "application/cbor")
    assert evidence.header("host") == NAME
    assert [(request.method, request.path, request.body) for request in others] == [("GET", "/", b""), ("POST", "/orders", b"one")]


def bound_to(**changes: bytes | None) -> Callable[[Scripted], None]:
    """Evidence that is wrong in some field."""

    def script(scripted: Scripted) -> None:
        async def evidence(asked: Asked) -> Response:
            return found(await scripted.document(asked, **changes))

        scripted.evidence = evidence

    return script


BINDINGS = {
    "another connection": (bound_to(exporter=bytes(32)), "binding_channel"),
    "no connection, as an answer that may be cached": (bound_to(exporter=None), "binding_channel"),
    "another key": (bound_to(spki_digest=bytes(48)), "binding_key"),
    "another config": (bound_to(config_digest=bytes(48)), "config_digest_mismatch"),
    "an application's challenge": (bound_to(user_data=encode_app(NONCE)), "binding_kind"),
    "a provisioner's transcript": (bound_to(user_data=encode_prov(bytes(48))), "binding_kind"),
    "nothing": (bound_to(user_data=None), "binding_kind"),
    "no CBOR": (bound_to(user_data=b"public"), "binding_kind"),
    "a kind that nobody knows": (bound_to(user_data=bytes.fromhex("a100636e6577")), "binding_kind"),
}


@pytest.mark.parametrize("what", BINDINGS)
async def test_evidence_that_is_bound_to_anything_else_is_refused(what: str) -> None:
    script, reason = BINDINGS[what]
    scripted = Scripted()
    script(scripted)
    assert await refusal(scripted) == reason
    assert len(scripted.asked) == 1, "and nothing else was asked of whoever that is"


async def test_evidence_that_was_fetched_over_a_connection_of_the_parents_own_is_refused() -> None:
    """A relay in the middle: it shows its own certificate and hands on the nonce, over a connection of its own, to the true enclave."""
    true = Scripted()
    relay = Scripted(root=true.root, ca=true.ca)

    async def fetch(asked: Asked) -> Response:
        address = true.at
        assert address is not None
        nonce = asked.nonce
        async with open_session(
            Target(host=NAME, port=443), true.policy(), nonce=nonce, clock=lambda: NOW, address=address
        ) as opened:
            return found(opened.attested.document)

    relay.evidence = fetch
    async with serving(true):
        assert await refusal(relay) == "binding_key"
        relay.identity = true.identity  # even with the enclave's own key the relay has two connections and not one
        assert await refusal(relay) == "binding_channel"


@pytest.mark.parametrize(
    "nonce", [bytes(32), None, NONCE[:-1], NONCE + b"\0"], ids=["another", "none", "a shorter one", "a longer one"]
)
async def test_evidence_for_another_nonce_is_refused(nonce: bytes | None) -> None:
    scripted = Scripted()
    bound_to(nonce=nonce)(scripted)
    assert await mismatches(scripted) == {"nonce_mismatch"}


async def test_an_old_answer_to_an_old_nonce_is_refused() -> None:
    scripted = Scripted()
    async with session(scripted, nonce=bytes(32)) as opened:
        old = opened.attested.document

    async def replay(_: Asked) -> Response:
        await trio.lowlevel.checkpoint()
        return found(old)

    scripted.evidence = replay
    assert await mismatches(scripted) == {"nonce_mismatch"}


async def test_what_a_client_believes_decides_and_all_that_does_not_hold_is_listed() -> None:
    other = ReferenceValues(measurements=(Measurement(name="app", pcrs=REGISTERS | {2: bytes(48)}, epoch=1),))
    assert await mismatches(Scripted(), reference=other) == {"measurement_unknown"}
    assert await mismatches(Scripted(), reference=None) == {"reference_missing"}
    assert await mismatches(Scripted(), roots=[make_root(now=NOW).certificate]) == {"root_unknown"}
    assert await mismatches(Scripted(), roots=[aws_root()], reference=other) == {"root_unknown", "measurement_unknown"}


async def test_a_debug_enclave_is_refused_unless_it_is_asked_for() -> None:
    debug = Scripted(debug=True)
    assert await mismatches(debug, reference=ANY_MEASUREMENT) == {"debug_enclave"}
    async with session(debug, reference=ANY_MEASUREMENT, allow_debug=True) as opened:
        assert opened.attested.result.is_debug


async def test_without_reference_values_that_name_a_config_any_config_will_do_and_is_told() -> None:
    scripted = Scripted()
    bound_to(config_digest=bytes(48))(scripted)
    async with session(scripted, reference=ANY_MEASUREMENT) as opened:
        assert opened.attested.config_digest == bytes(48)
        assert opened.attested.result.reference is None


def answering(response: Response) -> Callable[[Scripted], None]:
    """Another answer than evidence."""

    def script(scripted: Scripted) -> None:
        async def evidence(_: Asked) -> Response:
            await trio.lowlevel.checkpoint()
            return response

        scripted.evidence = evidence

    return script


@pytest.mark.parametrize("status", [204, 206, 301, 400, 404, 429, 500, 503])
async def test_an_enclave_that_answers_anything_but_200_gives_no_evidence(status: int) -> None:
    scripted = Scripted()
    answering(Response(status, (), b"" if status == 204 else b"busy"))(scripted)
    assert await refusal(scripted) == "evidence_unavailable"


@pytest.mark.parametrize("body", [b"", b"not a document", b"\xd2\x84\x43\xa1\x01\x38\x22\xa0\x40\x40", b"\x84" * 2000])
async def test_a_body_that_is_no_document_is_refused(body: bytes) -> None:
    scripted = Scripted()
    answering(found(body))(scripted)
    assert len(await mismatches(scripted)) == 1


@pytest.mark.parametrize("status", [200, 503])
async def test_a_body_that_is_too_large_is_not_read_to_its_end(status: int) -> None:
    scripted = Scripted()
    answering(Response(status, (), bytes(DOCUMENT_MAX + 1)))(scripted)
    assert await refusal(scripted) == "too_large"


async def test_an_answer_to_a_request_has_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.client.session.BODY_MAX", 4)
    assert BODY_MAX > 1 << 20
    async with session(Scripted()) as opened:
        with pytest.raises(ProtocolError) as refused:
            await opened.request("GET", "/")
    assert refused.value.reason == "too_large"


RAW = {
    "garbage": (b"\x00" * 64, "http_malformed"),
    "an end in the middle": (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf", "http_malformed"),
    "an end at once": (b"HTTP/1.1 ", "http_malformed"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", "http_malformed"),
}


@pytest.mark.parametrize("what", RAW)
async def test_a_server_that_does_not_speak_http_is_refused(what: str) -> None:
    data, reason = RAW[what]
    assert await refusal(Scripted(last_bytes=data)) == reason


async def test_a_certificate_is_judged_by_the_ca_that_is_given() -> None:
    scripted = Scripted()
    assert await refusal(scripted, ca=[make_ca("another CA", NOW).certificate]) == "tls_certificate"
    assert await refusal(scripted, name="other.test") == "tls_name"
    assert scripted.asked == []


async def test_without_a_ca_the_evidence_decides_alone_whatever_the_certificate_says() -> None:
    scripted = Scripted()
    scripted.identity = make_ca("nobody", NOW).issue(("somebody.test",))
    async with session(scripted, ca=None) as opened:
        assert opened.attested.spki_digest == key_digest(scripted.identity)
    bound_to(spki_digest=bytes(48))(scripted)
    assert await refusal(scripted, ca=None) == "binding_key"


async def test_a_server_that_never_answers_is_given_up(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    nursery.start_soon(skip_waiting, mock_clock)
    scripted = Scripted()

    async def stall(_: Asked) -> Response:
        await trio.sleep_forever()

    scripted.evidence = stall
    async with serving(scripted):
        with pytest.raises(trio.TooSlowError):
            async with connecting(scripted):
                raise AssertionError("a session was opened")
    assert 19 < mock_clock.current_time() < 30


async def test_a_server_that_never_shakes_hands_is_given_up(mock_clock: MockClock, nursery: trio.Nursery) -> None:
    nursery.start_soon(skip_waiting, mock_clock)
    scripted = Scripted(is_silent=True)
    async with serving(scripted):
        with pytest.raises(trio.TooSlowError):
            async with connecting(scripted):
                raise AssertionError("a session was opened")
    assert 19 < mock_clock.current_time() < 30


async def test_the_exporter_that_a_binding_names_is_of_this_nonce() -> None:
    """The same connection, and the exporter of another nonce: an answer that was prepared before the question."""
    scripted = Scripted()

    async def prepared(asked: Asked) -> Response:
        return found(await scripted.document(asked, exporter=asked.tls.exporter(PUBLIC_EXPORTER_LABEL, bytes(32))))

    scripted.evidence = prepared
    assert await refusal(scripted) == "binding_channel"


@pytest.mark.parametrize(
    "url", ["http://a.test", "https://", "https://a.test/path", "https://a.test?x=1", "https://user@a.test", "a.test", ""]
)
def test_a_target_is_an_https_url_without_a_path(url: str) -> None:
    with pytest.raises(ValueError, match="https://HOST"):
        Target.parse(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.test", "https://a.test"),
        ("https://a.test:443/", "https://a.test"),
        ("https://A.test:8443", "https://a.test:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_a_target_is_shown_in_its_shortest_form(url: str, shown: str) -> None:
    assert Target.parse(url).url == shown
