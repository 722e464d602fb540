"""Finds the lines of a TOML document's keys, which tomllib does not tell.

Runs wherever settings are loaded. It reads only text that tomllib has accepted, so it judges nothing: it walks over the statements,
values and inline tables, and notes the line of each key, table header and array item the first time that it is seen.
"""

import re
import tomllib
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""A key's place: names of tables and keys, and the 0-based index of an array's item."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*(?:(?P<quoted>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')|(?P<bare>[A-Za-z0-9_-]+))[ \t]*""")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")


class Lines:
    """The lines of one document. `text` must be TOML that tomllib accepts; line numbers count from 1."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)
        self._lines: dict[Path, int] = {(): 1}
        self._arrays: dict[Path, int] = {}
        self._statements()

    def of(self, path: Path) -> int:
        """The line of `path`, or of the nearest table around it that is written down."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def _statements(self) -> None:
        table: Path = ()
        while self._skip_blank():
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._assignment(table)

    def _header(self, brackets: int) -> Path:
        line = self._line()
        self._at += brackets
        *parents, last = self._key()
        self._at += brackets
        path: Path = ()
        for name in parents:
            path = self._current((*path, name))
        path = (*path, last)
        if brackets == 2:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            self._lines.setdefault(path, line)
        path = self._current(path)
        self._note(path, line)
        # Written out, a table's own line is better than that of a sub-table which came before it.
        self._lines[path] = line
        return path

    def _current(self, path: Path) -> Path:
        """`path`, or its last item when it is an array of tables."""
        return (*path, self._arrays[path]) if path in self._arrays else path

    def _assignment(self, table: Path) -> None:
        line = self._line()
        path = (*table, *self._key())
        self._note(path, line)
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip_blank()
        match self._text[self._at]:
            case '"' | "'":
                self._match(_STRING)
            case "[":
                self._items(path)
            case "{":
                self._at += 1
                while self._inside("}"):
                    self._assignment(path)
            case _:
                self._match(_SCALAR)

    def _items(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._inside("]"):
            item = (*path, index)
            self._note(item, self._line())
            self._value(item)
            index += 1

    def _inside(self, closing: str) -> bool:
        """Whether another entry of an array or inline table follows; steps over commas and the closing bracket."""
        self._skip_blank()
        if self._text[self._at] == ",":
            self._at += 1
            self._skip_blank()
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False

    def _key(self) -> tuple[str, ...]:
        names: list[str] = []
        while True:
            part = self._match(_KEY_PART)
            quoted: str | None = part["quoted"]
            names.append(part["bare"] if quoted is None else tomllib.loads(f"name = {quoted}")["name"])
            if self._text[self._at] != ".":
                return tuple(names)
            self._at += 1

    def _note(self, path: Path, line: int) -> None:
        for size in range(1, len(path) + 1):
            self._lines.setdefault(path[:size], line)

    def _skip_blank(self) -> bool:
        """Steps over white space and comments; whether anything follows."""
        self._match(_BLANK)
        return self._at < len(self._text)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        assert match is not None, "tomllib accepted the document"
        self._at = match.end()
        return match

    def _line(self) -> int:
        at, line = self._counted
        self._counted = (self._at, line + self._text.count("\n", at, self._at))
        return self._counted[1]
