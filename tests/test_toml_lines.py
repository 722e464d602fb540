"""Where each key of a TOML document stands."""

import string
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.toml_lines import Lines, Path

DOCUMENT = '''\
# a comment with [brackets] and key = "value"
title = "a # no comment"   # a comment
"quoted key" = 1
'literal "key"' = 2
a.b . "c d" = 3
"\\u0065scaped" = 4
multi = """
fake = 1
[fake] \\""" still
"""""
literal = \'\'\'
fake = 2\'\'\'
after = 5
list = [
  1,
  [2, 3], # nested
  { x = 1, y = { z = "}" } },

  "],",
]
date = 1979-05-27 07:32:00
empty = []
inline = {}
inline2 = { p.q = 1, "r" = [ { s = 1 } ] }

[ table . "sub.table" ]
key = 0x1F

[[array]]
name = "first"
[array.inner]
key = 1
[[array.nested]]
deep = 1
[[array.nested]]
deep = 2

[[array]]
name = "second"
[[array.nested]]
deep = 3

[table]
late = true
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("title",), 2),
        (("quoted key",), 3),
        (('literal "key"',), 4),
        (("a",), 5),
        (("a", "b", "c d"), 5),
        (("escaped",), 6),
        (("multi",), 7),
        (("literal",), 11),
        (("after",), 13),
        (("list",), 14),
        (("list", 0), 15),
        (("list", 1), 16),
        (("list", 1, 1), 16),
        (("list", 2), 17),
        (("list", 2, "y", "z"), 17),
        (("list", 3), 19),
        (("date",), 21),
        (("empty",), 22),
        (("inline",), 23),
        (("inline2", "p", "q"), 24),
        (("inline2", "r", 0, "s"), 24),
        (("table", "sub.table"), 26),
        (("table", "sub.table", "key"), 27),
        (("array",), 29),
        (("array", 0), 29),
        (("array", 0, "name"), 30),
        (("array", 0, "inner"), 31),
        (("array", 0, "inner", "key"), 32),
        (("array", 0, "nested", 0, "deep"), 34),
        (("array", 0, "nested", 1), 35),
        (("array", 0, "nested", 1, "deep"), 36),
        (("array", 1), 38),
        (("array", 1, "name"), 39),
        (("array", 1, "nested", 0, "deep"), 41),
        (("table",), 43),
        (("table", "late"), 44),
        (("table", "missing"), 43),
        (("array", 1, "missing", 7, "more"), 38),
        (("missing",), 1),
    ],
)
def test_every_key_is_found_on_its_line(path: Path, line: int) -> None:
    assert tomllib.loads(DOCUMENT)
    assert Lines(DOCUMENT).of(path) == line


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_both_line_endings_count(ending: str) -> None:
    text = DOCUMENT.replace("\n", ending)
    assert tomllib.loads(text)
    assert Lines(text).of(("table", "late")) == 44


KEYS = st.text(string.ascii_letters + string.digits + "-_ .\"'#=[]é", min_size=1, max_size=6)
SCALARS: st.SearchStrategy[Any] = st.integers(-999, 999) | st.booleans() | st.text(string.printable, max_size=12)
INLINE: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def written(value: Any) -> str:
    """`value` as TOML on one line."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return '"' + "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in value) + '"'
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case _:
            return "{" + ", ".join(f"{written(key)} = {written(entry)}" for key, entry in value.items()) + "}"


@given(st.lists(st.tuples(KEYS, INLINE, st.integers(0, 3)), unique_by=lambda entry: entry[0], max_size=8), st.booleans())
def test_any_document_of_assignments_is_walked(entries: list[tuple[str, Any, int]], in_array: bool) -> None:
    text = "[[t]]\n[[t]]\n" if in_array else ""
    expected: dict[Path, int] = {}
    prefix: Path = ("t", 1) if in_array else ()
    for key, value, gap in entries:
        text += "\n" * gap + "# [x]\n"
        expected[*prefix, key] = text.count("\n") + 1
        text += f"{written(key)} = {written(value)} # = ]\n"
    tomllib.loads(text)
    lines = Lines(text)
    assert {path: lines.of(path) for path in expected} == expected
