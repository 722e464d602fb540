"""Every rule has documents that break it, and each is refused for exactly that."""

import pytest

from runtime.verifier.appraise import AppraisalFailed, appraise
from runtime.verifier.reference import ANY_MEASUREMENT
from runtime.verifier.roots import aws_root
from tests.support import documents
from tests.support.mutations_bytes import Mutation, envelope_mutations, payload_mutations, signed_wrongly
from tests.support.mutations_chain import link_mutations, order_mutations
from tests.support.vectors import document_bytes, vector

GENUINE = ("20220727-us-east-2-prod-57b70cf5.cbor", "20260630-us-east-1-prod-277e236b.cbor")


def _forged() -> list[Mutation]:
    return [
        *envelope_mutations(documents.document()),
        *signed_wrongly(),
        *payload_mutations(),
        *order_mutations(),
        *link_mutations(),
    ]


FORGED = _forged()
REAL = [
    (f"{name}: {what}", name, data, codes) for name in GENUINE for what, data, codes in envelope_mutations(document_bytes(name))
]


@pytest.mark.parametrize(("data", "codes"), [pytest.param(data, codes, id=what) for what, data, codes in FORGED])
def test_an_altered_document_under_a_trusted_root_is_refused_for_what_was_altered(data: bytes, codes: set[str]) -> None:
    with pytest.raises(AppraisalFailed) as refused:
        appraise(data, now=documents.NOW, roots=[documents.trusted_root()], reference=ANY_MEASUREMENT)
    assert set(refused.value.codes) == codes


@pytest.mark.parametrize(("name", "data", "codes"), [pytest.param(name, data, codes, id=what) for what, name, data, codes in REAL])
def test_an_altered_genuine_document_is_refused_for_what_was_altered(name: str, data: bytes, codes: set[str]) -> None:
    with pytest.raises(AppraisalFailed) as refused:
        appraise(data, now=vector(name).timestamp, roots=[aws_root()], reference=ANY_MEASUREMENT)
    assert set(refused.value.codes) == codes


def test_there_are_hundreds_of_distinct_mutations() -> None:
    assert len({data for _, data, _ in FORGED} | {data for _, _, data, _ in REAL}) >= 400
    assert len({what for what, _, _ in FORGED}) == len(FORGED)


def test_the_documents_that_were_altered_are_accepted_unaltered() -> None:
    appraise(documents.document(), now=documents.NOW, roots=[documents.trusted_root()], reference=ANY_MEASUREMENT)
    for name in GENUINE:
        appraise(document_bytes(name), now=vector(name).timestamp, roots=[aws_root()], reference=ANY_MEASUREMENT)
