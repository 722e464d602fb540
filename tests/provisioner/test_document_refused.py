"""Documents that no NSM signed like this, at the provisioner: shape, signature, chain and time, each with its own reason."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import cbor2
import pytest

from runtime.protocol.messages import Evidence
from runtime.simulator.nsm import Faults
from tests.provisioner.forgery import Paper, flipped, paper
from tests.provisioner.refusals import refusal, refuse_evidence
from tests.support import der_writer as der
from tests.support import documents
from tests.support.documents import ABSENT, altered, key, nitro_chain
from tests.support.prov import Attempt, Bench

Change = Callable[[Paper], object]


@pytest.fixture
def forging(tmp_path: Path) -> Iterator[Bench]:
    """A bench that trusts the root of tests/support/documents.py."""
    bench = Bench(tmp_path, roots=[documents.trusted_root()])
    yield bench
    bench.close()


def forged(bench: Bench, change: Change) -> Attempt:
    """An attempt whose evidence carries a document that `change` made wrong."""
    attempt = bench.boot().attempt()
    attempt.greet()
    attempt.commit()
    written = paper(attempt)
    change(written)
    attempt.message = attempt.handshake.evidence(written.write())
    return attempt


def test_the_documents_that_are_made_wrong_here_are_right_otherwise(forging: Bench) -> None:
    attempt = forged(forging, lambda written: None)
    attempt.opened(attempt.prove())


def set_fields(**fields: Any) -> Change:
    return lambda written: written.fields.update(fields)


def set_chain(place: int, **changes: Any) -> Change:
    return lambda written: setattr(written, "plans", altered(place, **changes))


def set_finish(finish: Callable[[bytes], bytes]) -> Change:
    return lambda written: setattr(written, "finish", finish)


def own_root(written: Paper) -> None:
    """A chain of the right shape below a root of the sender's own."""
    stranger = replace(nitro_chain()[0], key=key(40))
    written.plans = (stranger, *nitro_chain()[1:])


SYNTAX: dict[str, Change] = {
    "no COSE at all": set_finish(lambda data: b"document"),
    "trailing byte": set_finish(lambda data: data + b"\0"),
    "cut short": set_finish(lambda data: data[:-1]),
    "an array of three": set_finish(lambda data: b"\x83" + data[1:]),
    "a tag for something else": set_finish(lambda data: b"\xd1" + data),
    "another algorithm": set_finish(lambda data: b"\x84" + cbor2.dumps(b"\xa1\x01\x26") + data[6:]),
    "a signature of 95 bytes": set_finish(lambda data: data[:-98] + b"\x58\x5f" + data[-95:]),
    "a key twice": lambda written: written.fields.update(
        nonce=documents.Raw(cbor2.dumps(b"x") + cbor2.dumps("nonce") + cbor2.dumps(b"y"))
    ),
    "a field that no document has": set_fields(extra=b""),
    "no module": set_fields(module_id=ABSENT),
    "an empty module": set_fields(module_id=""),
    "another digest": set_fields(digest="SHA256"),
    "no registers": set_fields(pcrs={}),
    "a register of 47 bytes": lambda written: written.pcrs.update({5: bytes(47)}),
    "a register 32": lambda written: written.pcrs.update({32: bytes(48)}),
    "user data over its size": set_fields(user_data=bytes(1025)),
    "the time as text": set_fields(timestamp="now"),
    "the time zero": set_fields(timestamp=0),
}


@pytest.mark.parametrize("change", SYNTAX.values(), ids=list(SYNTAX))
def test_what_is_no_document(forging: Bench, change: Change) -> None:
    refuse_evidence(forged(forging, change), code="refused", reason="doc_syntax")


SIGNATURES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": flipped,
    "zeros": lambda signature: bytes(96),
    "ones": lambda signature: b"\xff" * 96,
    "halves traded": lambda signature: signature[48:] + signature[:48],
    "of something else": lambda signature: documents.sign(b"something else"),
    "by another key": lambda signature: documents.sign(b"anything", private=key(30)),
}


@pytest.mark.parametrize("alter", SIGNATURES.values(), ids=list(SIGNATURES))
def test_a_signature_that_does_not_verify(forging: Bench, alter: Callable[[bytes], bytes]) -> None:
    refuse_evidence(
        forged(forging, lambda written: setattr(written, "alter_signature", alter)), code="refused", reason="doc_signature"
    )


CHAINS: dict[str, Change] = {
    "a root of its own": own_root,
    "an intermediate that is no authority": set_chain(2, basic=der.basic_constraints(ca=False)),
    "an intermediate without constraints": set_chain(3, basic=b""),
    "an intermediate that may not sign certificates": set_chain(2, usage=der.key_usage(der.DIGITAL_SIGNATURE)),
    "a path too long": set_chain(1, basic=der.basic_constraints(path_length=1)),
    "an intermediate signed by a stranger": set_chain(1, signer=key(41)),
    "an expired intermediate": set_chain(3, not_after=documents.MADE),
    "a leaf not yet valid": set_chain(-1, not_before=documents.NOW.replace(hour=13)),
    "a leaf that is an authority": set_chain(-1, basic=der.basic_constraints(ca=True)),
    "a leaf of another module": set_chain(-1, common_name="i-00000000000000000-enc0.us-east-1.aws"),
}


@pytest.mark.parametrize("change", CHAINS.values(), ids=list(CHAINS))
def test_a_chain_that_must_not_be_believed(forging: Bench, change: Change) -> None:
    refuse_evidence(forged(forging, change), code="refused", reason="doc_chain")


# Time


@pytest.mark.parametrize("age", [0.0, 59.0, 60.0])
def test_a_document_of_the_last_minute_is_fresh(bench: Bench, age: float) -> None:
    boot = bench.boot()
    boot.nsm.faults = Faults(clock_skew=-timedelta(seconds=age))
    attempt = boot.attempt()
    attempt.opened(attempt.run())


@pytest.mark.parametrize("age", [61.0, 600.0, 86_400.0])
def test_an_older_document_is_stale(bench: Bench, age: float) -> None:
    boot = bench.boot()
    boot.nsm.faults = Faults(clock_skew=-timedelta(seconds=age))
    refuse_evidence(boot.attempt().ready(), code="refused", reason="doc_stale")


@pytest.mark.parametrize("ahead", [4.0, 5.0])
def test_clocks_may_differ_by_five_seconds(bench: Bench, ahead: float) -> None:
    boot = bench.boot()
    boot.nsm.faults = Faults(clock_skew=timedelta(seconds=ahead))
    attempt = boot.attempt()
    attempt.opened(attempt.run())


@pytest.mark.parametrize("ahead", [6.0, 3600.0])
def test_a_document_from_the_future(bench: Bench, ahead: float) -> None:
    boot = bench.boot()
    boot.nsm.faults = Faults(clock_skew=timedelta(seconds=ahead))
    refuse_evidence(boot.attempt().ready(), code="refused", reason="doc_future")


# The message around it


def test_evidence_that_is_not_strict_cbor_consumes_nothing(bench: Bench) -> None:
    """Check 1 comes before check 2: what cannot be read names no challenge, and the right message still earns its release."""
    attempt = bench.boot().attempt().ready()
    found = Evidence.decode(attempt.message)
    parts = enumerate((found.challenge_id, found.document, found.hpke_public_key))
    items = [cbor2.dumps(number) + cbor2.dumps(value) for number, value in parts]
    body = b"".join(items)
    wrong = {
        "a key twice": b"\xa4" + items[0] + items[0] + items[1] + items[2],
        "a trailing byte": b"\xa3" + body + b"\0",
        "an indefinite map": b"\xbf" + body + b"\xff",
        "keys out of order": b"\xa3" + items[1] + items[0] + items[2],
        "an unknown field": b"\xa4" + body + b"\x18\x40\x00",
        "a long integer": b"\xa3\x18\x00" + body[1:],
        "a string in pieces": b"\xa3" + items[0] + b"\x01\x5f" + items[1][1:] + b"\xff" + items[2],
        "cut short": b"\xa3" + body[:-1],
        "nothing": b"",
        "over 16 KiB": b"\xa3" + body + bytes(16 * 1024),
    }
    for name, message in wrong.items():
        assert refusal(bench, partial(attempt.prove, message)).outcome == ("malformed", "malformed"), name
    assert bench.challenge_state(attempt.challenge.challenge_id) == "issued"
    attempt.opened(attempt.prove())


def test_a_document_over_the_size_of_an_nsms_answer_is_malformed(bench: Bench) -> None:
    attempt = bench.boot().attempt()
    attempt.greet()
    attempt.evidence(bytes(12_289))
    assert refusal(bench, attempt.prove).outcome == ("malformed", "malformed")
