"""Strict settings: TOML text to frozen dataclasses, or errors that name file, line and key and say what would be right.

Runs in every role, the enclave included. A file is taken whole or not at all: an unknown key, a wrong type, a value out of range or a
missing key refuses it, and every such problem is reported. Pure: callers read the files.

A dataclass is the schema of one table. Its fields may be `str`, `int`, `float`, `bool`, `Literal[...]`, `X | None` and other unions,
`tuple[X, ...]` (an array), `dict[str, X]` (a table of free keys), another dataclass (a table), `Duration`, `Size`, any class with a
classmethod `parse(text)`, and `Annotated[...]` with the rules below. A default makes a key optional. `__post_init__` may raise
`ValueError` for a rule between keys, or `KeyProblem` to name the key at fault.
"""

import dataclasses
import re
import tomllib
from difflib import get_close_matches
from math import isfinite
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from runtime.settings_rules import (
    NonEmpty,
    OneOf,
    Parse,
    Pattern,
    Range,
    Rule,
    parse_duration,
    parse_size,
    show_duration,
    show_size,
)
from runtime.toml_lines import Lines, Path

__all__ = [
    "NOT_A_KEY", "Duration", "KeyProblem", "NonEmpty", "OneOf", "Parse", "Pattern", "Problem", "Range", "SettingsError", "Size",
    "decode", "load",
]  # fmt: skip

T = TypeVar("T")

Duration: TypeAlias = Annotated[float, Parse(parse_duration, show=show_duration)]
"""Seconds, written with a unit: "250ms", "10s", "5m", "1h", "7d"."""

Size: TypeAlias = Annotated[int, Parse(parse_size, show=show_size)]
"""Bytes, written with a unit: "512B", "64KiB", "1MiB", "2GiB"."""

NOT_A_KEY = {"settings": "not a key"}
"""`field(metadata=NOT_A_KEY)`: the field is the program's own and no file can set it."""

_TYPE_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false", list: "an array", dict: "a table"}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a file: `line` counts from 1, `key` is dotted ("" for the file itself)."""

    source: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.source}:{self.line}", self.key, self.message) if part)


class SettingsError(ValueError):
    """The file is refused. `problems` are in the order of their lines; `str()` gives one line for each."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(map(str, self.problems)))


class KeyProblem(ValueError):
    """For a `__post_init__`: `message` is about the key at `path`, counted from the dataclass that raises it."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


def decode(raw: bytes, source: str) -> str:
    """The text of a file's bytes, which must be UTF-8. Raises `SettingsError`."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(Problem(source=source, line=line, key="", message="is not UTF-8 text")) from None


def load(cls: type[T], text: str, source: str) -> T:
    """The settings that `text` holds, as a `cls`; `source` is the file's name in messages. Raises `SettingsError`."""
    try:
        table = tomllib.loads(text)
        lines = Lines(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of more digits than Python converts
        raise SettingsError(_syntax_problem(str(error), text, source)) from None
    except RecursionError:
        raise SettingsError(Problem(source=source, line=1, key="", message="is nested too deeply")) from None
    reader = _Reader()
    settings: T = reader.read(cls, table, ())
    if reader.problems:
        raise SettingsError(
            *(Problem(source=source, line=lines.of(path), key=dotted(path), message=message) for path, message in reader.problems)
        )
    return settings


def problem_at(text: str, source: str, path: Path, message: str) -> SettingsError:
    """For what can be judged only once the whole file was read: a complaint about the key at `path`."""
    return SettingsError(Problem(source=source, line=Lines(text).of(path), key=dotted(path), message=message))


def dotted(path: Path) -> str:
    """`path` as it is written in messages: `process[0].env."A B"`."""
    written = ""
    for name in path:
        if isinstance(name, int):
            written += f"[{name}]"
        else:
            written += ("." if written else "") + (name if _BARE_KEY.fullmatch(name) else _quoted(name))
    return written


def _syntax_problem(error: str, text: str, source: str) -> Problem:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", error)
    message = error[: place.start()] if place else error
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    return Problem(source=source, line=line, key="", message=f"not valid TOML: {message[:1].lower()}{message[1:]}")


class _Reader:
    """Turns tomllib's values into a schema's, collecting problems; what it returns counts only while there are none."""

    def __init__(self) -> None:
        self.problems: list[tuple[Path, str]] = []

    def read(self, kind: Any, value: Any, path: Path) -> Any:
        rules: list[object] = []
        if get_origin(kind) is Annotated:
            kind, *rules = get_args(kind)
        parse = next((rule for rule in rules if isinstance(rule, Parse)), None)
        before = len(self.problems)
        result = self._parsed(parse.function, value, path) if parse else self._plain(kind, value, path)
        if len(self.problems) == before:
            for rule in rules:
                complaint = None
                if isinstance(rule, Range):
                    complaint = rule.complaint(result, parse.show if parse else str)
                elif isinstance(rule, Rule):
                    complaint = rule.complaint(result)
                if complaint:
                    self._problem(path, complaint)
        return result

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append((path, message))

    def _plain(self, kind: Any, value: Any, path: Path) -> Any:
        origin = get_origin(kind)
        if hasattr(kind, "parse"):
            return self._parsed(kind.parse, value, path)
        if dataclasses.is_dataclass(kind):
            return self._table(kind, value, path)
        if origin is Literal:
            return self._choice(get_args(kind), value, path)
        if origin in (Union, UnionType):
            return self._union(get_args(kind), value, path)
        if origin is tuple:
            item = get_args(kind)[0]
            return tuple(self.read(item, entry, (*path, index)) for index, entry in enumerate(self._typed(list, value, path) or ()))
        if origin is dict:
            item = get_args(kind)[1]
            return {key: self.read(item, entry, (*path, key)) for key, entry in (self._typed(dict, value, path) or {}).items()}
        if kind in (str, int, float, bool):
            return self._typed(kind, value, path)
        raise TypeError(f"{dotted(path)}: {kind!r} is not a type of settings")

    def _typed(self, kind: type, value: Any, path: Path) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            self._problem(path, f"must be {_TYPE_NAMES[kind]}, not {_TYPE_NAMES.get(type(value), 'a date or time')}")
            return None
        if isinstance(value, float) and not isfinite(value):
            self._problem(path, "must be a finite number")
        return value

    def _parsed(self, function: Any, value: Any, path: Path) -> Any:
        text = self._typed(str, value, path)
        if text is None:
            return None
        try:
            return function(text)
        except ValueError as error:
            self._problem(path, str(error))
            return None

    def _choice(self, choices: tuple[Any, ...], value: Any, path: Path) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            listed = ", ".join(_quoted(choice) if isinstance(choice, str) else str(choice) for choice in choices)
            self._problem(path, ("must be one of " if len(choices) > 1 else "must be ") + listed + _nearest(value, choices))
        return value

    def _union(self, kinds: tuple[Any, ...], value: Any, path: Path) -> Any:
        complaints: list[list[tuple[Path, str]]] = []
        for kind in kinds:
            if kind is not type(None):
                arm = _Reader()
                result = arm.read(kind, value, path)
                if not arm.problems:
                    return result
                complaints.append(arm.problems)
        if len(complaints) == 1:
            self.problems += complaints[0]
        else:
            self._problem(path, ", or ".join(arm[0][1] for arm in complaints))
        return None

    def _table(self, cls: Any, value: Any, path: Path) -> Any:
        before = len(self.problems)
        table = self._typed(dict, value, path)
        if table is None:
            return None
        kinds = get_type_hints(cls, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.metadata != NOT_A_KEY}
        for key in table:
            if key not in fields:
                self._problem((*path, key), "is not a known key" + (_nearest(key, fields) or f"; known here: {', '.join(fields)}"))
        read = {name: self.read(kinds[name], table[name], (*path, name)) for name in fields if name in table}
        for name, field in fields.items():
            if name not in table and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                self._problem((*path, name), "is missing")
        if len(self.problems) > before:
            return None
        try:
            return cls(**read)
        except KeyProblem as error:
            self._problem((*path, *error.path), str(error))
        except ValueError as error:
            self._problem(path, str(error))
        return None


def _nearest(value: Any, choices: Any) -> str:
    texts = [choice for choice in choices if isinstance(choice, str)]
    close = get_close_matches(value, texts, n=1) if isinstance(value, str) else []
    return f" (did you mean {_quoted(close[0])}?)" if close else ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text.isprintable() else ascii(text)
