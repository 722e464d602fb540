"""Heads of the customer process's answers: judged as strictly as a client's, and made into what the client gets. Pure.

Another client's answer must never come out of a misread one, so an answer whose end is in doubt is none.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from runtime.enclave.traffic.http_heads import FIELD_LINES, VALUE

HEAD_MAX = 64 * 1024
"""Bytes of an answer's head."""

Framing: TypeAlias = Literal["none", "length", "chunked", "end"]

_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n(" + FIELD_LINES + rb")\r\n")
# Fields that mean something to this hop. Everything else goes back byte for byte.
_OURS = re.compile(
    rb"^(connection|content-length|transfer-encoding|upgrade|keep-alive|te|trailer|proxy|proxy-connection|proxy-authenticate)"
    rb":[ \t]*(" + VALUE + rb")[ \t]*\r\n",
    re.IGNORECASE | re.MULTILINE,
)
_STAYS = re.compile(rb"^connection:[ \t]*keep-alive[ \t]*\r\n", re.IGNORECASE | re.MULTILINE)
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class BadAnswer(Exception):
    """An answer that cannot be read in exactly one way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """An answer's head. `lines` is its status line and the fields that go back, without those that frame the body for the client.

    `framing` tells where its body ends; `length` is of framing "length". `keep_alive`: whether the process keeps the connection open.
    """

    status: int
    lines: bytes
    framing: Framing
    length: int
    keep_alive: bool
    upgrade: bytes | None


def cannot_begin_answer(part: bytearray) -> bool:
    """Whether these first bytes of an answer, without its blank line, are those of none: it would be waited for in vain."""
    return not b"HTTP/1.".startswith(part[:7]) or _BARE.search(part) is not None


def parse_answer(head: bytes, *, method: bytes) -> AnswerHead:
    """The head of an answer to a request of `method`, ending in its blank line. Raises `BadAnswer`."""
    match = _HEAD.fullmatch(head)
    if match is None:
        raise BadAnswer("not the head of an answer")
    minor, code, reason, block = match.groups()
    status = int(code)
    if minor == b"1":
        block = _STAYS.sub(b"", block, 1)  # which is what it means without
    ours = _OURS.findall(block)
    bodiless = status < 200 or status in (204, 304) or method == b"HEAD"
    if len(ours) == 1 and ours[0][0].lower() == b"content-length" and status != 204 and status >= 200:  # as most of them are
        if not _LENGTH.fullmatch(ours[0][1]):
            raise BadAnswer("a bad Content-Length")
        return AnswerHead(
            status=status,
            lines=b"HTTP/1.1 %b %b\r\n%b" % (code, reason or b"", block),
            framing="none" if bodiless else "length",
            length=int(ours[0][1]),
            keep_alive=minor == b"1",
            upgrade=None,
        )
    return _parse_slowly(status, reason or b"", block, ours, minor == b"1", bodiless)


def _parse_slowly(
    status: int, reason: bytes, block: bytes, ours: list[tuple[bytes, bytes]], is_1_1: bool, bodiless: bool
) -> AnswerHead:
    found: dict[bytes, list[bytes]] = {}
    for name, value in ours:
        found.setdefault(name.lower(), []).append(value)
    lengths = found.get(b"content-length", [])
    codings = [value.lower() for value in found.get(b"transfer-encoding", [])]
    options = {option.strip(b" \t").lower() for value in found.get(b"connection", []) for option in value.split(b",")} - {b""}
    if len(lengths) > 1 or any(not _LENGTH.fullmatch(value) for value in lengths):
        raise BadAnswer("a bad Content-Length")
    if codings not in ([], [b"chunked"]) or (codings and (lengths or not is_1_1)):
        raise BadAnswer("a bad Transfer-Encoding")
    drops_length = status < 200 or status == 204  # RFC 9110 section 8.6
    kept = [line for line in block.split(b"\r\n")[:-1] if _goes_back(line.partition(b":")[0].lower(), options)]
    if drops_length:
        kept = [line for line in kept if not line.lower().startswith(b"content-length:")]
    framing: Framing = "end"
    if bodiless:
        framing = "none"
        if codings and status >= 200 and status not in (204, 304):
            kept.append(b"Transfer-Encoding: chunked")
    elif codings:
        framing = "chunked"
    elif lengths:
        framing = "length"
    kept.append(b"")
    upgrades = found.get(b"upgrade", [])
    return AnswerHead(
        status=status,
        lines=b"HTTP/1.1 %d %b\r\n%b" % (status, reason, b"\r\n".join(kept)),
        framing=framing,
        length=int(lengths[0]) if lengths else 0,
        keep_alive=is_1_1 and b"close" not in options and framing != "end",
        upgrade=upgrades[0] if len(upgrades) == 1 and b"upgrade" in options else None,
    )


_HOP_BY_HOP = frozenset(
    {b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"te", b"trailer",
     b"proxy", b"proxy-connection", b"proxy-authenticate"}
)  # fmt: skip


def _goes_back(name: bytes, options: set[bytes]) -> bool:
    return name not in _HOP_BY_HOP and (name == b"content-length" or name not in options)
