"""The vocabularies, limits and value readers of the control link's messages (link.py). A reader gives its value or raises `Malformed`."""

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias, TypeVar, get_args

from runtime.protocol.cbor import Value
from runtime.protocol.errors import Malformed
from runtime.protocol.fields import octets, text, uint

StateName: TypeAlias = Literal[
    "booting", "attesting", "provisioned", "starting", "ready", "degraded", "draining", "stopped", "failed"
]  # fmt: skip
Stage: TypeAlias = Literal[
    "load", "prepare", "config", "image", "entropy", "clock", "parent", "measure", "provision", "live", "supervise", "local_api",
    "egress", "ingress", "processes",
]  # fmt: skip
Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Stream: TypeAlias = Literal["stdout", "stderr"]
JournalFields: TypeAlias = Mapping[str, int | str | bytes]

STATES: tuple[StateName, ...] = get_args(StateName)
STAGES: tuple[Stage, ...] = get_args(Stage)
LEVELS: tuple[Level, ...] = get_args(Level)
STREAMS: tuple[Stream, ...] = get_args(Stream)

LINE_MAX = 32 * 1024
SEALED_MAX = 60 * 1024
SEALED_LINES_MAX = 1024
TEXT_MAX = 200
BYTES_MAX = 64
ENTRIES_MAX = 32
METRICS_MAX = 512
PARAMETERS_MAX = 32
TICKET_SIZE = 32

_WORD = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_METRIC = re.compile(r"[!-~]{1,110}")
_INT64 = range(-(2**63), 2**63)
_Choice = TypeVar("_Choice", bound=str)


def word(value: Value, what: str) -> str:
    """A name of the code's own: `[a-z][a-z0-9_.]*`, at most 64 characters."""
    if type(value) is not str or not _WORD.fullmatch(value):
        raise Malformed(f"{what} must be a word of lower-case letters, digits, '_' and '.'")
    return value


def reason(value: Value, what: str) -> str:
    """A word, or nothing."""
    return "" if value == "" else word(value, what)


def one_of(value: Value, what: str, choices: tuple[_Choice, ...]) -> _Choice:
    """A member of a closed vocabulary."""
    for choice in choices:
        if value == choice:
            return choice
    raise Malformed(f"{what} must be one of {', '.join(choices)}")


def true(value: Value, what: str) -> bool:
    """A flag that is there or not: only true."""
    if value is not True:
        raise Malformed(f"{what} must be true or absent")
    return True


def integer(value: Value, what: str) -> int:
    """A signed integer of 64 bits."""
    if type(value) is not int or value not in _INT64:
        raise Malformed(f"{what} must be an integer of 64 bits")
    return value


def sequence(value: Value, what: str) -> int:
    """A position in the one count of a boot's sequenced messages."""
    if (number := uint(value, what)) == 0:
        raise Malformed(f"{what} counts from 1")
    return number


def entries(value: Value, what: str, most: int) -> list[tuple[str, Value]]:
    """A map with text keys."""
    if type(value) is not dict or len(value) > most:
        raise Malformed(f"{what} must be a map of at most {most} entries")
    return [(text(key, f"{what}'s keys", least=1, most=TEXT_MAX), entry) for key, entry in value.items()]


def metric_name(value: str) -> str:
    """A metric's name with its labels; so short that `METRICS_MAX` of them fit in a frame."""
    if not _METRIC.fullmatch(value):
        raise Malformed("a metric's name must be 1 to 110 printable ASCII characters")
    return value


def journal_value(value: Value, what: str) -> int | str | bytes:
    """What a journal field may hold."""
    if type(value) is str:
        return text(value, what, most=TEXT_MAX)
    return octets(value, what, most=BYTES_MAX) if type(value) is bytes else integer(value, what)


def ticket(value: Value, what: str) -> bytes | None:
    """A ticket, or null for none."""
    return None if value is None else octets(value, what, size=TICKET_SIZE)
