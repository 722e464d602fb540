"""Strict settings: what loads, and where each mistake is said to be."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.settings import (
    NOT_A_KEY,
    Duration,
    KeyProblem,
    NonEmpty,
    OneOf,
    Parse,
    Pattern,
    Problem,
    Range,
    SettingsError,
    Size,
    decode,
    load,
)
from runtime.settings_rules import parse_duration, parse_size, show_duration, show_size


@dataclass(frozen=True, slots=True)
class Colour:
    """A value with a notation of its own."""

    red: int

    @classmethod
    def parse(cls, text: str) -> "Colour":
        if not text.startswith("#"):
            raise ValueError("must start with #")
        return cls(int(text[1:], 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    every: Annotated[Duration, Range(0.1, 60)] = 1.0
    failures: Annotated[int, Range(1, None)] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    name: Annotated[str, NonEmpty()]
    command: Annotated[tuple[str, ...], NonEmpty()] | None = None
    restart: Literal["never", "on-failure", "always"] = "on-failure"
    probe: Probe | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    version: Literal[1]
    process: tuple[Process, ...] = ()
    colour: Colour = Colour(0)
    workers: int | Literal["auto"] = "auto"
    share: float = 0.5
    enabled: bool = True
    cache: Annotated[Size, Range(1024, 1 << 30)] = 4096
    names: Annotated[tuple[str, ...], Pattern("[a-z]+", "lower-case words")] = ()
    ports: tuple[Annotated[int, Range(1, 65535)], ...] = ()
    level: Annotated[int, OneOf((1, 2, 4)), Range(None, 3)] = 1
    even: Annotated[int, Parse(lambda text: int(text, 2))] = 0
    digest: bytes = field(default=b"", metadata=NOT_A_KEY)

    def __post_init__(self) -> None:
        if self.cache == 2048:
            raise ValueError("2048 is a bad omen")
        for index, process in enumerate(self.process):
            if process.name == "ghost":
                raise KeyProblem("is nobody", "process", index, "name")


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(Config, text, "a.toml")
    return str(refused.value).splitlines()


def test_a_whole_file_becomes_values() -> None:
    config = load(
        Config,
        """
version = 1
colour = "#ff"
workers = 4
share = 1
enabled = false
cache = "1MiB"
names = ["a", "b"]
ports = [1, 65535]
level = 2
even = "110"

[[process]]
name = "app"
command = ["/bin/app", "-v"]
probe = { every = "250ms", failures = 2 }

[[process]]
name = "helper"
restart = "never"
[process.env]
LOG_LEVEL = "info"
""",
        "a.toml",
    )
    assert config == Config(
        version=1,
        colour=Colour(255),
        workers=4,
        share=1.0,
        enabled=False,
        cache=1 << 20,
        names=("a", "b"),
        ports=(1, 65535),
        level=2,
        even=6,
        process=(
            Process(name="app", command=("/bin/app", "-v"), probe=Probe(every=0.25, failures=2)),
            Process(name="helper", restart="never", env={"LOG_LEVEL": "info"}),
        ),
    )
    assert type(config.share) is float


def test_what_has_a_default_may_be_left_out() -> None:
    assert load(Config, "version = 1", "a.toml") == Config(version=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'a.toml:1: version: is missing'),
        ("version = 2", "a.toml:1: version: must be 1"),
        ("version = true", "a.toml:1: version: must be 1"),
        ('version = "1"', "a.toml:1: version: must be 1"),
        ("version = 1\nenabled = 1", "a.toml:2: enabled: must be true or false, not an integer"),
        ("version = 1\nshare = true", "a.toml:2: share: must be a number, not true or false"),
        ("version = 1\nshare = nan", "a.toml:2: share: must be a finite number"),
        ("version = 1\nshare = -inf", "a.toml:2: share: must be a finite number"),
        ("version = 1\nshare = 1979-05-27", "a.toml:2: share: must be a number, not a date or time"),
        ("version = 1\nenabld = true", 'a.toml:2: enabld: is not a known key (did you mean "enabled"?)'),
        ("version = 1\ndigest = 'x'", "a.toml:2: digest: is not a known key; known here: version, process, "),
        ("version = 1\ncolour = '11'", "a.toml:2: colour: must start with #"),
        ("version = 1\ncolour = 11", "a.toml:2: colour: must be a string, not an integer"),
        ("version = 1\neven = '2'", "a.toml:2: even: invalid literal for int() with base 2: '2'"),
        ("version = 1\nworkers = true", 'a.toml:2: workers: must be an integer, not true or false, or must be "auto"'),
        ("version = 1\nworkers = 'atuo'", '(did you mean "auto"?)'),
        ("version = 1\ncache = 4096", "a.toml:2: cache: must be a string, not an integer"),
        ("version = 1\ncache = '1KB'", 'a.toml:2: cache: must be a size with its unit, such as "512B"'),
        ("version = 1\ncache = '5B'", "a.toml:2: cache: must be from 1KiB to 1GiB"),
        ("version = 1\ncache = '2KiB'", "a.toml:1: 2048 is a bad omen"),
        ("version = 1\nnames = ['a', 'B']", "a.toml:2: names: must be lower-case words"),
        ("version = 1\nnames = ['a',\n 3]", "a.toml:3: names[1]: must be a string, not an integer"),
        ("version = 1\nports = [\n80, # web\n0]", "a.toml:4: ports[1]: must be from 1 to 65535"),
        ("version = 1\nports = 80", "a.toml:2: ports: must be an array, not an integer"),
        ("version = 1\nlevel = 3", "a.toml:2: level: must be one of 1, 2, 4"),
        ("version = 1\nlevel = 4", "a.toml:2: level: must be at most 3"),
        ("version = 1\nprocess = 1", "a.toml:2: process: must be an array, not an integer"),
        ("version = 1\n[process]\nname = 'x'", "a.toml:2: process: must be an array, not a table"),
        ("version = 1\nprocess = ['x']", "a.toml:2: process[0]: must be a table, not a string"),
        ("version = 1\n[[process]]\n", "a.toml:2: process[0].name: is missing"),
        ("version = 1\n[[process]]\nname = ''", "a.toml:3: process[0].name: must not be empty"),
        ("version = 1\n[[process]]\nname = 'a'\n\n[[process]]\nnam = 'b'", "a.toml:5: process[1].name: is missing"),
        ("version = 1\n[[process]]\nname = 'a'\n\n[[process]]\nname = 'ghost'", "a.toml:6: process[1].name: is nobody"),
        ("version = 1\n[[process]]\nname = 'a'\ncommand = []", "a.toml:4: process[0].command: must not be empty"),
        ("version = 1\n[[process]]\nname = 'a'\nrestart = 'allways'", '"never", "on-failure", "always" (did you mean "always"?)'),
        ("version = 1\n[[process]]\nname = 'a'\nprobe = { every = '2m' }", "process[0].probe.every: must be from 100ms to 1m"),
        ("version = 1\n[[process]]\nname = 'a'\nprobe = { every = '2 s' }", 'must be a duration with its unit, such as "250ms"'),
        ("version = 1\n[[process]]\nname = 'a'\nprobe = { failures = 0 }", "process[0].probe.failures: must be at least 1"),
        ("version = 1\n[[process]]\nname = 'a'\nprobe = { failure = 3 }", 'a.toml:4: process[0].probe.failure: is not a known key (did'),
        ("version = 1\n[[process]]\nname = 'a'\n[process.env]\nA = '1'\n'B c' = 2", 'a.toml:6: process[0].env."B c": must be a string'),
        ("version = 1\n[[process]]\nname = 'a'\n[process.env]\n\"\\u0007\" = 2", "a.toml:5: process[0].env.'\\x07': must be a string"),
        ("version = 1\nversion = 1", "a.toml:2: not valid TOML: cannot overwrite a value"),
        ("version = 1\n[a]\n[a]", "a.toml:3: not valid TOML: cannot declare ('a',) twice"),
        ("version = 1\n\nshare = ", "a.toml:3: not valid TOML: invalid value"),
        ("version = 1\nnames = [\n'a',\n", "a.toml:4: not valid TOML: "),
        ("version = " + "1" * 5000, "not valid TOML: exceeds the limit"),
        ("version = 1\nnames = " + "[" * 100_000, "a.toml:1: is nested too deeply"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line_and_key(text: str, expected: str) -> None:
    assert any(expected in line for line in problems(text)), problems(text)


def test_every_problem_is_reported_in_the_order_of_lines() -> None:
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in problems("share = 'x'\n[[process]]\n[extra]\n")] == [
        "a.toml:1 share",
        "a.toml:1 version",
        "a.toml:2 process[0].name",
        "a.toml:3 extra",
    ]


def test_problems_can_be_read_one_by_one() -> None:
    with pytest.raises(SettingsError) as refused:
        load(Config, "version = 1\nports = [0]", "a.toml")
    (problem,) = refused.value.problems
    assert (problem.source, problem.line, problem.key) == ("a.toml", 2, "ports[0]")


def test_bytes_that_are_not_utf_8_are_refused_with_their_line() -> None:
    with pytest.raises(SettingsError, match=r"a\.toml:2: is not UTF-8 text"):
        decode(b"version = 1\n# \xff", "a.toml")
    assert decode("# é".encode(), "a.toml") == "# é"


def test_a_schema_of_unknown_types_is_our_own_mistake() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: bytes

    with pytest.raises(TypeError, match="not a type of settings"):
        load(Odd, "value = 1", "a.toml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("250ms", 0.25), ("1.5s", 1.5), ("10s", 10), ("5m", 300), ("1h", 3600), ("7d", 604800)]
)
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "+1s", "1 s", "1S", "1s ", "1e3s", ".5s", "1.s", "٣s", "1_0s", "9999999999s", "1s\n"]
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "10", "B", "-1B", "1 B", "1KB", "1kib", "1.5MiB", "1MiB\n", "٣B", "9" * 16 + "B"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_a_size_that_is_shown_reads_back(size: int) -> None:
    assert parse_size(show_size(size)) == size


@given(st.integers(0, 10**8))
def test_a_duration_that_is_shown_reads_back(milliseconds: int) -> None:
    assert parse_duration(show_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.text())
def test_any_text_gives_settings_or_the_one_error(text: str) -> None:
    try:
        found: tuple[Problem, ...] = ()
        assert load(Config, text, "a.toml").version == 1
    except SettingsError as refused:
        found = refused.problems
    assert all(1 <= problem.line <= text.count("\n") + 1 for problem in found)
