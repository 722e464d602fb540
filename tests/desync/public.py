"""Others' corpora (tests/vectors/http/README.md): http-desync-guardian's cases, and http-garden's payloads out of its own list."""

import ast
import json
from pathlib import Path
from typing import Any

from tests.desync.cases import Arrival, Case

_GUARDIAN = Path(__file__).parents[1] / "vectors" / "http" / "http-desync-guardian.json"
_REFUSED = frozenset({400, 501, 505})


def guardian() -> list[Case]:
    """All cases, with a Host where they have none and the body that they announce."""
    return [_case(entry) for entry in json.loads(_GUARDIAN.read_text())["cases"]]


def _case(entry: dict[str, Any]) -> Case:
    head: bytes = entry["head"].encode("latin-1")
    line, _, fields = head.partition(b"\r\n")
    name = f"{entry['file']}: {entry['name']}: {line[:60].decode('latin-1')!r}"
    if b"\r\nhost:" not in head.lower():
        head = line + b"\r\nHost: a.example\r\n" + fields
    if entry["verdict"] == "refuse":
        return Case(name=name, raw=head, refused=_REFUSED, why=entry.get("why", ""))
    method, target, _ = line.split(b" ")
    coded, body = _body(head)
    arrival = Arrival(method=method, target=target, body=body)
    if entry["verdict"] == "either":
        return Case(name=name, raw=head, arrives=(arrival,), refused=_REFUSED, optional=True, closes=None, why=entry["why"])
    return Case(name=name, raw=head + coded, arrives=(arrival,), why=entry.get("why", ""))


def _body(head: bytes) -> tuple[bytes, bytes]:
    """(As it is sent, as it is meant) what the well-formed `head` announces."""
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return b"x" * int(value), b"x" * int(value)
        if name == b"transfer-encoding":
            return b"5\r\nhello\r\n0\r\n\r\n", b"hello"
    return b"", b""


def garden(trophies: Path) -> list[bytes]:
    """The payloads in http-garden's TROPHIES.md, without those that are described in words."""
    found = []
    for line in trophies.read_text().splitlines():
        _, mark, rest = line.partition("- Payload: `")
        if mark:
            parts = rest.removesuffix("`").split("` `")
            found.append("".join(_unescape(part) for part in parts).encode("latin-1"))
    return found


def _unescape(text: str) -> str:
    literal = "'" + text.replace("'", "\\'") + "'"
    value = ast.literal_eval(literal)
    assert isinstance(value, str)
    return value
