"""The order of a handshake, driven at random: one step at a time forward, nothing out of turn, and no way back from a failure."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from runtime.protocol.errors import LocalProtocolError, Malformed, Refused
from runtime.protocol.handshake import NEXT_STATES, ChallengeState, EnclaveHandshake, State
from runtime.protocol.messages import Confirm, Hello, Outcome, transcript
from runtime.protocol.sealing import Suite
from tests.protocol.handshakes import BUNDLE, CHALLENGE, CHANNEL, CLAIMS, DOCUMENT, LEASE_ID, NOW, Proven, sealing_key

ORDER = (State.NEW, State.GREETED, State.CHALLENGED, State.COMMITTED, State.PROVEN, State.RELEASED, State.CONFIRMED)
JUNK = st.binary(max_size=60)
OUTCOMES: tuple[Outcome, ...] = ("live", "failed")
HELLO: dict[str, Any] = {"ticket": bytes(32), "client_nonce": bytes(32), "suites": (Suite.X25519,)}
COMMIT: dict[str, Any] = {"hpke_public_key": sealing_key().public, "channel": CHANNEL, "certificate_request": None}


class Handshakes(RuleBasedStateMachine):
    """`at` is where the handshake must stand. Every step is tried at any time; the model says what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.handshake = EnclaveHandshake(CLAIMS)
        self.at = State.NEW
        self.hello: Hello | None = None
        self.opened = False

    def take(self, expected: State, *, fails: bool = False) -> bool:
        """Whether the step is in turn; moves the model."""
        if self.at is not expected:
            return False
        self.at = State.FAILED if fails else ORDER[ORDER.index(expected) + 1]
        return True

    def out_of_turn(self, step: str, *arguments: object, **named: object) -> None:
        with pytest.raises(LocalProtocolError):
            getattr(self.handshake, step)(*arguments, **named)

    @rule()
    def say_hello(self) -> None:
        if self.take(State.NEW):
            self.hello = Hello.decode(self.handshake.hello(**HELLO))
        else:
            self.out_of_turn("hello", **HELLO)

    @rule()
    def receive_a_challenge(self) -> None:
        if self.take(State.GREETED):
            assert self.handshake.receive_challenge(CHALLENGE.encode()) == CHALLENGE
        else:
            self.out_of_turn("receive_challenge", CHALLENGE.encode())

    @rule(data=JUNK)
    def receive_junk_for_a_challenge(self, data: bytes) -> None:
        if self.take(State.GREETED, fails=True):
            with pytest.raises(Malformed):
                self.handshake.receive_challenge(data)
        else:
            self.out_of_turn("receive_challenge", data)

    @rule()
    def commit(self) -> None:
        if self.take(State.CHALLENGED):
            assert self.handshake.commit(**COMMIT).nonce == CHALLENGE.server_nonce
        else:
            self.out_of_turn("commit", **COMMIT)

    @rule()
    def give_evidence(self) -> None:
        if self.take(State.COMMITTED):
            assert DOCUMENT in self.handshake.evidence(DOCUMENT)
        else:
            self.out_of_turn("evidence", DOCUMENT)

    @rule()
    def receive_the_release(self) -> None:
        release = self.release()
        if self.take(State.PROVEN):
            released = self.handshake.receive_release(release, key=sealing_key(), now=NOW, last_bundle_version=0)
            assert released.bundle == BUNDLE
            assert not self.opened
            self.opened = True
        else:
            self.out_of_turn("receive_release", release, key=sealing_key(), now=NOW, last_bundle_version=0)

    @rule(data=JUNK, fault=st.sampled_from(["junk", "late", "older"]))
    def receive_a_wrong_release(self, data: bytes, fault: str) -> None:
        release = data if fault == "junk" else self.release()
        now, last = NOW * 2 if fault == "late" else NOW, 6 if fault == "older" else 0
        if self.take(State.PROVEN, fails=True):
            with pytest.raises((Malformed, Refused)):
                self.handshake.receive_release(release, key=sealing_key(), now=now, last_bundle_version=last)
        else:
            self.out_of_turn("receive_release", release, key=sealing_key(), now=now, last_bundle_version=last)

    @rule(outcome=st.sampled_from(OUTCOMES))
    def confirm(self, outcome: Outcome) -> None:
        if self.take(State.RELEASED):
            confirm = Confirm.decode(self.handshake.confirm(outcome))
            assert (confirm.lease_id, confirm.outcome) == (LEASE_ID, outcome)
        else:
            self.out_of_turn("confirm", outcome)

    def release(self) -> bytes:
        """A right release for this handshake; before there is a hello, one for nobody."""
        key, expected = sealing_key(), bytes(48)
        if self.hello is not None:
            expected = transcript(self.hello, CHALLENGE, hpke_public_key=key.public, channel=CHANNEL, certificate_request=None)
        return Proven(handshake=self.handshake, transcript=expected, key=key).release()

    @invariant()
    def the_handshake_stands_where_the_model_does(self) -> None:
        assert self.handshake.state is self.at


def test_a_handshake_goes_forward_in_its_order_and_never_out_of_failure() -> None:
    run_state_machine_as_test(Handshakes, settings=settings(max_examples=150, stateful_step_count=20, deadline=None))


def test_nothing_but_hello_is_in_turn_at_first() -> None:
    handshake = EnclaveHandshake(CLAIMS)
    steps: list[Callable[[], object]] = [
        lambda: handshake.receive_challenge(CHALLENGE.encode()),
        lambda: handshake.commit(hpke_public_key=b"k", channel=None, certificate_request=None),
        lambda: handshake.evidence(DOCUMENT),
        lambda: handshake.receive_release(b"", key=sealing_key(), now=NOW, last_bundle_version=0),
        lambda: handshake.confirm("live"),
    ]
    for step in steps:
        with pytest.raises(LocalProtocolError):
            step()
        assert handshake.state is State.NEW


def test_a_challenge_at_the_provisioner_goes_one_way() -> None:
    """Issued, consumed before anything is judged, then released or refused; no state leads back and the last two lead nowhere."""
    assert set(NEXT_STATES) == set(ChallengeState)
    assert NEXT_STATES[ChallengeState.ISSUED] == {ChallengeState.CONSUMED}
    assert NEXT_STATES[ChallengeState.CONSUMED] == {ChallengeState.RELEASED, ChallengeState.REFUSED}
    assert not NEXT_STATES[ChallengeState.RELEASED]
    assert not NEXT_STATES[ChallengeState.REFUSED]
