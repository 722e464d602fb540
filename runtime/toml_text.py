"""Settings back to text: what a file means once every default is filled in.

Runs on the machine of whoever checks a file. The text that `to_toml` writes loads to the same settings again.
"""

import dataclasses
import json
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from runtime.settings import NOT_A_KEY, Parse

Table: TypeAlias = dict[str, Any]


def to_table(settings: Any) -> Table:
    """The keys of `settings`, a dataclass that `runtime.settings.load` made, as JSON has them; what is None is left out."""
    kinds = get_type_hints(type(settings), include_extras=True)
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.metadata != NOT_A_KEY}
    return {name: _plain(kinds[name], value) for name, value in values.items() if value is not None}


def to_toml(table: Table, path: str = "") -> str:
    """`table` as TOML, values before sub-tables; `path` is the dotted name of the table itself."""
    lines: list[str] = []
    below: list[str] = []
    for key, value in table.items():
        name = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, dict):
            below.append(f"\n[{name}]\n{to_toml(value, name)}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            below += [f"\n[[{name}]]\n{to_toml(entry, name)}" for entry in value]
        else:
            lines.append(f"{_key(key)} = {_value(value)}\n")
    return "".join(lines + below)


def _plain(kind: Any, value: Any) -> Any:
    """`value` the way that the file writes it."""
    rules: list[object] = []
    if get_origin(kind) is Annotated:
        kind, *rules = get_args(kind)
    for rule in rules:
        if isinstance(rule, Parse):
            return rule.show(value)
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        return _plain(kinds[0], value) if len(kinds) == 1 else value
    if hasattr(kind, "parse"):
        return str(value)
    if dataclasses.is_dataclass(kind):
        return to_table(value)
    if get_origin(kind) is tuple:
        return [_plain(arguments[0], entry) for entry in value]
    return {key: _plain(arguments[1], entry) for key, entry in value.items()} if get_origin(kind) is dict else value


def _key(name: str) -> str:
    return name if name and all(c.isascii() and (c.isalnum() or c in "-_") for c in name) else _text(name)


def _value(value: Any) -> str:
    match value:
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case str() if "\n" in value.strip("\n"):
            return '"""\n' + "\n".join(_text(line)[1:-1] for line in value.split("\n")) + '"""'
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
