"""The codes, and what they are to PROV/1."""

import re
from pathlib import Path

import pytest

import runtime.protocol
from runtime.verifier.reasons import Mismatch, Reason, prov_reason

PROTOCOL = Path(runtime.protocol.__file__).parent


def mismatches(*codes: Reason) -> list[Mismatch]:
    return [Mismatch(code=code, detail="") for code in codes]


def test_every_reason_of_the_decoder_has_its_code() -> None:
    source = (PROTOCOL / "document.py").read_text()
    named = set(re.findall(r'"((?:cose|payload|pcr|certificate|cabundle|nitrotpm)_[a-z_]+)"', source)) - {"nitrotpm_pcrs"}
    assert len(named) > 15
    assert named <= {code.value for code in Reason}


ORDER = [
    (Reason.COSE_ALGORITHM, "doc_syntax"),
    (Reason.SIGNATURE_INVALID, "doc_signature"),
    (Reason.ROOT_UNKNOWN, "doc_chain"),
    (Reason.DOCUMENT_STALE, "doc_stale"),
    (Reason.DOCUMENT_FROM_FUTURE, "doc_future"),
    (Reason.NONCE_MISMATCH, "nonce_mismatch"),
    (Reason.USER_DATA_MISMATCH, "transcript_mismatch"),
    (Reason.DEBUG_ENCLAVE, "debug_enclave"),
    (Reason.MEASUREMENT_UNKNOWN, "measurement_unknown"),
    (Reason.INSTANCE_REGISTER, "host_instance"),
]


@pytest.mark.parametrize("place", range(len(ORDER)))
def test_the_first_failing_check_names_the_reason(place: int) -> None:
    failing = [code for code, _ in ORDER[place:]]
    assert prov_reason(mismatches(*failing)) == ORDER[place][1]
    assert prov_reason(mismatches(*reversed(failing))) == ORDER[place][1]


@pytest.mark.parametrize("code", list(Reason))
def test_every_code_has_a_reason_of_the_protocol(code: Reason) -> None:
    expected = {
        "cose": "doc_syntax",
        "cbor": "doc_syntax",
        "payload": "doc_syntax",
        "pcr": "doc_syntax",
        "signature": "doc_signature",
        "path": "doc_chain",
        "issuer": "doc_chain",
    }.get(code.value.partition("_")[0])
    assert prov_reason(mismatches(code)) in ({expected} if expected else {reason for _, reason in ORDER})


def test_a_mismatch_says_its_code() -> None:
    assert str(Mismatch(code=Reason.DEBUG_ENCLAVE, detail="in debug mode")) == "in debug mode [debug_enclave]"
