"""What a hostile or a sloppy customer process may answer, and what the client must get: that answer, an error, or a visible cut."""

from tests.desync.answers import cut, delivered, refused
from tests.desync.answers.cases import AnswerCase

ANSWERS: dict[str, list[AnswerCase]] = {"refused": refused.CASES, "cut": cut.CASES, "delivered": delivered.CASES}
