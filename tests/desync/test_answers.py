"""Every answer of the corpus: the client gets it as it was meant, or an error, or sees that it is cut, and nothing of another's."""

from pathlib import Path

import pytest

from tests.desync.answer_judge import answer_outcome
from tests.desync.answers import ANSWERS
from tests.desync.rig import running


@pytest.mark.parametrize("singly", [False, True], ids=["whole", "singly"])
@pytest.mark.parametrize("corpus", ANSWERS)
async def test_a_client_gets_the_answer_that_was_meant_or_an_error_or_sees_a_cut(tmp_path: Path, corpus: str, singly: bool) -> None:
    lines = []
    async with running(tmp_path) as rig:
        for case in ANSWERS[corpus]:
            if faults := await answer_outcome(rig, case, singly=singly):
                lines += [f"{case.name}: {case.answer[:300]!r}", *(f"    {fault}" for fault in faults), f"    {case.why}"]
    assert not lines, "\n".join(lines)
