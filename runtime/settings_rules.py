"""The rules that a settings field can carry in `Annotated[...]`, and how values with units are read and shown.

Import them from `runtime.settings`. A rule is anything with `complaint(value)`: None, or a sentence that starts with "must".
"""

import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, runtime_checkable

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB|TiB)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}


@runtime_checkable
class Rule(Protocol):
    """What a value must keep besides its type."""

    def complaint(self, value: Any) -> str | None:
        """None when `value` keeps the rule, else what it must be."""


@dataclass(frozen=True, slots=True)
class Parse:
    """The value is a string that `function` reads; its ValueError is the problem. `show` is its reverse."""

    function: Callable[[str], Any]
    _: KW_ONLY
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Range:
    """A number from `least` to `most`, both allowed; None sets no bound. For a tuple: each of its
    numbers. `show` writes the bounds the way that the file does."""

    least: float | None
    most: float | None = None

    def complaint(self, value: Any, show: Callable[[Any], str] = str) -> str | None:
        numbers = value if isinstance(value, tuple) else (value,)
        if all((self.least is None or number >= self.least) and (self.most is None or number <= self.most) for number in numbers):
            return None
        if self.most is None:
            return f"must be at least {show(self.least)}"
        return (
            f"must be at most {show(self.most)}" if self.least is None else f"must be from {show(self.least)} to {show(self.most)}"
        )


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of `choices`, for values that `Literal` cannot name."""

    choices: tuple[Any, ...]

    def complaint(self, value: Any) -> str | None:
        return None if value in self.choices else f"must be one of {', '.join(map(str, self.choices))}"


@dataclass(frozen=True, slots=True)
class NonEmpty:
    """A string, array or table with something in it."""

    def complaint(self, value: Any) -> str | None:
        return None if value else "must not be empty"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A string, or every string of an array, that `regex` matches from end to end; `what` says it in words."""

    regex: str
    what: str = ""

    def complaint(self, value: Any) -> str | None:
        texts = value if isinstance(value, tuple) else (value,)
        if all(re.fullmatch(self.regex, text) for text in texts):
            return None
        return f"must be {self.what}" if self.what else f"must match {self.regex}"


def parse_duration(text: str) -> float:
    """Seconds of "250ms", "10s", "5m", "1h" or "7d". Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError('must be a duration with its unit, such as "250ms", "10s", "5m", "1h" or "7d"')
    return float(match[1]) * _SECONDS[match[2]]


def show_duration(seconds: float) -> str:
    """The reverse of `parse_duration`, in the largest unit that leaves no fraction."""
    for unit, size in _SECONDS.items():
        if seconds >= size and (count := round(seconds / size, 6)).is_integer():
            return f"{count:.0f}{unit}"
    return f"{seconds * 1000:.6f}".rstrip("0").rstrip(".") + "ms" if seconds else "0s"


def parse_size(text: str) -> int:
    """Bytes of "512B", "64KiB", "1MiB" or "2GiB". Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError('must be a size with its unit, such as "512B", "64KiB", "1MiB" or "2GiB"')
    return int(match[1]) * _BYTES[match[2]]


def show_size(size: int) -> str:
    """The reverse of `parse_size`, in the largest unit that leaves no fraction."""
    for unit, count in _BYTES.items():
        if size >= count and size % count == 0:
            return f"{size // count}{unit}"
    return "0B"
