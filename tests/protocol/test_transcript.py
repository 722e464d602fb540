"""T, what the evidence commits to: it is the digest of the specification, and nothing that either end said can change without it."""

from dataclasses import replace
from hashlib import sha384
from itertools import combinations
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.messages import Challenge, Hello, transcript
from tests.protocol.prov_messages import octets, text

HELLO = Hello(
    versions=(1, 2),
    suites=(3, 1),
    ticket=b"\x01" * 32,
    client_nonce=b"\x02" * 32,
    config_digest=b"\x03" * 48,
    boot_id=b"\x04" * 16,
    purpose="renew",
    runtime="enclave-runtime/1.4.0",
    previous_lease_id=b"\x05" * 16,
)
CHALLENGE = Challenge(
    version=1, suite=3, challenge_id=b"\x06" * 16, server_nonce=b"\x07" * 32, lifetime=60, provisioner_id="provisioner-1"
)
OTHERS: dict[str, Any] = {"hpke_public_key": b"\x08" * 32, "channel": b"\x09" * 32, "certificate_request": b"\x0a" * 48}

CHANGES: list[tuple[str, list[Any]]] = [
    ("versions", [(1,), (2, 1), (1, 2, 3), (1, 2, 2), (12,)]),
    ("suites", [(3,), (1, 3), (3, 1, 2), (31,)]),
    ("ticket", [b"\0" + b"\x01" * 31, b"\x01" * 31 + b"\0"]),
    ("client_nonce", [b"\0" + b"\x02" * 31]),
    ("config_digest", [b"\0" + b"\x03" * 47]),
    ("boot_id", [b"\0" + b"\x04" * 15]),
    ("purpose", ["setup"]),
    ("runtime", ["enclave-runtime/1.4.1", "", "enclave-runtime/1.4.0 "]),
    ("previous_lease_id", [None, b"\0" * 16]),
    ("version", [2, 0]),
    ("suite", [1, 2]),
    ("challenge_id", [b"\0" + b"\x06" * 15]),
    ("server_nonce", [b"\0" + b"\x07" * 31]),
    ("provisioner_id", ["provisioner-2", "provisioner"]),
    ("hpke_public_key", [b"\x08" * 31, b"\x08" * 33, b"\0" + b"\x08" * 31]),
    ("channel", [None, b"none", b"\0" + b"\x09" * 31]),
    ("certificate_request", [None, b"", b"\x0a" * 47]),
]


def committed(**changes: Any) -> bytes:
    """T with some of its inputs changed, whichever of the three arguments has them."""
    hello, challenge, others = HELLO, CHALLENGE, dict(OTHERS)
    for name, value in changes.items():
        if hasattr(HELLO, name):
            hello = replace(hello, **{name: value})
        elif hasattr(CHALLENGE, name):
            challenge = replace(challenge, **{name: value})
        else:
            others[name] = value
    return transcript(hello, challenge, **others)


def test_the_table_of_changes_names_every_input() -> None:
    inputs = {*Hello.__slots__, *Challenge.__slots__, *OTHERS} - {"lifetime"}
    assert {name for name, _ in CHANGES} == inputs


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CHANGES for value in values], ids=repr)
def test_every_input_changes_the_transcript(name: str, value: Any) -> None:
    assert committed(**{name: value}) != committed()


def test_no_two_of_all_single_changes_give_one_transcript() -> None:
    found = [committed(**{name: value}) for name, values in CHANGES for value in values]
    assert len(set(found)) == len(found)


SAME_SIZE = [
    ("ticket", "client_nonce", "server_nonce", "channel"),
    ("boot_id", "previous_lease_id", "challenge_id"),
    ("runtime", "provisioner_id"),
    ("versions", "suites"),
    ("version", "suite"),
    ("hpke_public_key", "certificate_request"),
]


def value_of(name: str) -> Any:
    return OTHERS.get(name) or getattr(HELLO, name, None) or getattr(CHALLENGE, name)


@pytest.mark.parametrize(("one", "other"), [pair for names in SAME_SIZE for pair in combinations(names, 2)])
def test_values_that_trade_places_change_the_transcript(one: str, other: str) -> None:
    assert value_of(one) != value_of(other)
    assert committed(**{one: value_of(other), other: value_of(one)}) != committed()


def test_the_transcript_is_the_digest_that_the_specification_writes_down() -> None:
    """Section 1.2, with another implementation of CBOR and hashes taken here."""
    expected = {
        0: "prov/1 evidence",
        1: [1, 2],
        2: 1,
        3: [3, 1],
        4: 3,
        5: sha384(b"\x01" * 32).digest(),
        6: b"\x06" * 16,
        7: b"\x07" * 32,
        8: b"\x02" * 32,
        9: sha384(b"\x08" * 32).digest(),
        10: b"\x09" * 32,
        11: b"\x03" * 48,
        12: b"\x04" * 16,
        13: "provisioner-1",
        14: "renew",
        15: "enclave-runtime/1.4.0",
        16: sha384(b"\x0a" * 48).digest(),
        17: b"\x05" * 16,
    }
    assert committed() == sha384(cbor2.dumps(expected, canonical=True)).digest()
    setup = {key: value for key, value in expected.items() if key not in {16, 17}} | {10: "none", 14: "setup"}
    without = committed(channel=None, certificate_request=None, purpose="setup", previous_lease_id=None)
    assert without == sha384(cbor2.dumps(setup, canonical=True)).digest()


@given(st.data())
def test_two_transcripts_are_equal_only_when_every_input_is(data: st.DataObject) -> None:
    """Values from a small pool, so that equal and traded ones are common."""
    pool = st.sampled_from([b"\x01" * 32, b"\x02" * 32])
    short = st.sampled_from([b"\x01" * 16, b"\x02" * 16])
    word = st.sampled_from(["a", "b", ""])
    number = st.sampled_from([1, 2])
    inputs = st.fixed_dictionaries(
        {
            "versions": st.lists(number, min_size=1, max_size=2).map(tuple),
            "suites": st.lists(number, min_size=1, max_size=2).map(tuple),
            "ticket": pool,
            "client_nonce": pool,
            "boot_id": short,
            "runtime": word,
            "version": number,
            "suite": number,
            "challenge_id": short,
            "server_nonce": pool,
            "provisioner_id": word,
            "hpke_public_key": pool,
            "channel": st.none() | pool,
            "certificate_request": st.none() | pool,
        }
    )
    one, other = data.draw(inputs), data.draw(inputs)
    assert (committed(**one) == committed(**other)) == (one == other)


@given(octets(32), octets(16), text(0, 64))
def test_a_transcript_is_forty_eight_bytes(nonce: bytes, boot: bytes, runtime: str) -> None:
    assert len(committed(client_nonce=nonce, boot_id=boot, runtime=runtime)) == 48
