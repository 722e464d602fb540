"""Keeps the pages true: links, names of files, commands, settings, reason codes and events are those of the code."""

import argparse
import dataclasses
import re
import tomllib
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from types import UnionType
from typing import Any

import pytest

from runtime.cli import COMMANDS
from runtime.client.config import read_client_config
from runtime.enclave import config, config_egress, config_ingress, config_process
from runtime.enclave.config_roots import PinnedRoots
from runtime.enclave.config_values import Url
from runtime.image.config import ImageConfig
from runtime.net.endpoint import Tcp
from runtime.parent.config import read_config as read_parent_config
from runtime.provisioner.config import ProvisionerConfig
from runtime.settings import decode, load
from runtime.toml_text import to_table
from runtime.verifier.reasons import Reason
from runtime.verifier.reference import parse_reference
from tests.support.pages import Block, anchors, blocks, console_blocks, links, prose, quoted, rows, section, words

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "runtime"
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") and part != ".github" for part in page.relative_to(ROOT).parts)
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# What every page must be


def test_there_is_a_page_for_each_topic() -> None:
    topics = ("README.md", "THREATS.md", *(f"{name}/README.md" for name in ("protocol", "enclave", "verifier", "parent")))
    assert {RUNTIME / topic for topic in (*topics, "provisioner/README.md", "simulator/README.md", "image/README.md")} <= set(PAGES)


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if re.match(r"https?://", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = {name for name in quoted(prose(page)) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|toml|md|lock)", name)}
    places = (page.parent, RUNTIME, ROOT)
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


@each_page
def test_a_page_speaks_of_nothing_outside_the_repository(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|tmp|home|root)/\S*", page.read_text()) == []


def test_what_the_code_cites_is_a_section_of_that_page() -> None:
    missing = []
    for path in sorted([*RUNTIME.rglob("*.py"), *(ROOT / "config").glob("*.toml")]):
        text = path.read_text()
        for page, number in re.findall(r"(\w+/README\.md),? (?:section )?(\d(?:\.\d)?)", text):
            if not re.search(rf"^#+ {re.escape(number)}\.? ", (RUNTIME / page).read_text(), re.MULTILINE):
                missing.append(f"{path.name} cites {page} {number}")
        missing += [f"{path.name} cites {name}" for name in re.findall(r"\b(?:DESIGN|STYLE)\b.{0,20}", text)]
    assert missing == []


# Commands


def parse(command: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="enclave")
    subparsers = parser.add_subparsers(required=True)
    for name in COMMANDS:
        import_module(f"runtime.commands.{name.replace('-', '_')}").add_parser(subparsers)
    return parser.parse_args(words(command)[1:])


SHOWN = [
    command
    for page in PAGES
    for block in console_blocks(page)
    for command in block
    if words(command)[0].rpartition("/")[2] == "enclave"
]


@pytest.mark.parametrize("command", sorted(set(SHOWN)))
def test_every_command_that_a_page_shows_is_one(command: str) -> None:
    assert callable(parse(command).handler)


def test_pages_show_commands_of_every_kind() -> None:
    assert {words(command)[1] for command in SHOWN} == set(COMMANDS)


def test_a_command_that_is_none_is_not_taken() -> None:
    with pytest.raises(SystemExit):
        parse("enclave verify --no-such-option")


def test_console_blocks_are_read_with_and_without_prompts(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ first \\\n  --on\noutput\n$ second\n```\n```sh\nno\n```\n```console\nscripts/run\n\n# said\nlast 'a b'\n```\n"
    )
    assert [[words(command) for command in block] for block in console_blocks(page)] == [
        [["first", "--on"], ["second"]],
        [["scripts/run"], ["last", "a b"]],
    ]


# Configuration files


def loader(name: str, table: dict[str, Any]) -> Callable[[Path], object] | None:
    """Who takes a file with this table, None for a part of one."""
    loaders: dict[str, tuple[set[str], Callable[[Path], object]]] = {
        "enclave": ({"version", "process"}, lambda path: config.load_enclave_config(path.read_bytes(), path.name)),
        "parent": ({"version", "instance_id"}, read_parent_config),
        "provisioner": (
            {"version", "roots"},
            lambda path: load(ProvisionerConfig, decode(path.read_bytes(), path.name), path.name),
        ),
        "client": ({"version", "url"}, lambda path: read_client_config(str(path))),
        "image": ({"version", "kernel"}, lambda path: load(ImageConfig, decode(path.read_bytes(), path.name), path.name)),
        "reference": ({"version", "measurement"}, lambda path: parse_reference(path.read_text())),
    }
    return next((take for kind, (keys, take) in loaders.items() if kind == name or keys <= table.keys()), None)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.toml")), ids=lambda path: path.name)
def test_every_example_of_a_configuration_file_loads(path: Path) -> None:
    take = loader(path.stem, {})
    assert take is not None
    assert take(path) is not None


TOML = [block for page in PAGES for block in blocks(page) if block.language == "toml"]


@pytest.mark.parametrize("block", TOML, ids=range(len(TOML)))
def test_every_toml_block_parses_and_a_whole_file_loads(block: Block, tmp_path: Path) -> None:
    table = tomllib.loads(block.text)
    assert table
    take = loader("", table)
    if take is not None:
        (tmp_path / "block.toml").write_text(block.text)
        assert take(tmp_path / "block.toml") is not None


SAMPLES: dict[type, Callable[[], Any]] = {
    config.Process: lambda: config.Process(name="app"),
    config.Ready: lambda: config.Ready(tcp=Tcp("127.0.0.1", 80)),
    config.Provisioner: lambda: config.Provisioner(url=Url("https", "a.example", 443, ""), ca=PinnedRoots(()), keys=(bytes(32),)),
    config.EgressRule: lambda: config.EgressRule(cidr=ip_network("10.0.0.0/8"), ports=(443,)),
    config.Identity: lambda: config.Identity(id="a"),
}
"""A value of each table that has required keys, to read the defaults of the others from."""


SCHEMA = {config.__name__, config_egress.__name__, config_ingress.__name__, config_process.__name__}


def tables(kind: Any) -> Iterator[type]:
    """The dataclasses of the schema (config.py and its parts) in the type of a key; those of config_values.py are values."""
    if typing.get_origin(kind) is typing.Annotated or typing.get_origin(kind) in (tuple, typing.Union, UnionType):
        for inner in typing.get_args(kind):
            yield from tables(inner)
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind.__module__ in SCHEMA:
        yield kind


def keys(kind: type, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, default as the page shows it) of a table and those below it."""
    hints = typing.get_type_hints(kind, include_extras=True)
    shown = to_table(SAMPLES.get(kind, kind)()) if kind is not config.EnclaveConfig else {}
    for field in dataclasses.fields(kind):
        if field.metadata:
            continue
        below = [*tables(hints[field.name])]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            default = "required" if not below or field.name == "process" else ""
        elif field.default is None:
            default = "none"
        elif below and field.default != ():
            default = ""
        else:
            value = shown[field.name]
            default = (
                f"`{value}`" if type(value) is int else f"`{str(value).lower()}`" if type(value) is bool else f"`{as_toml(value)}`"
            )
        yield path + field.name, default
        for table in below:
            yield from keys(table, f"{path}{field.name}.")


def as_toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else {"[]": "[]", "{}": "{}"}[str(value)]


def test_every_key_of_enclave_toml_stands_in_its_page_with_its_default() -> None:
    reference = section(RUNTIME / "enclave" / "README.md", "## enclave.toml")
    written = {row[0].strip("`"): row[1] for row in rows(reference)}
    schema = {key: default for key, default in keys(config.EnclaveConfig) if key != "enclave"}
    assert written == schema


def test_what_this_version_refuses_is_said_to_be_not_available() -> None:
    meanings = {row[0].strip("`"): row[2] for row in rows(section(RUNTIME / "enclave" / "README.md", "## enclave.toml"))}
    refused = {f"{table}.{key}" for table, key, _ in config.NOT_YET}
    assert {key for key in refused if "not available" not in meanings[key]} == set()
    assert {key for key, meaning in meanings.items() if "not available" in meaning} - refused == {
        key for key in meanings if key.startswith("tls.acme")
    }


# Reason codes


def test_the_table_of_reasons_is_that_of_the_verifier() -> None:
    source = (RUNTIME / "verifier" / "reasons.py").read_text()
    meanings = dict(re.findall(r' = "([a-z0-9_]+)"  # (.*)', source))
    table = [row for row in rows(section(RUNTIME / "verifier" / "README.md", "## Reason codes")) if row[0].startswith("`")]
    assert [(row[0].strip("`"), row[1]) for row in table] == [(reason.value, meanings[reason.value]) for reason in Reason]
