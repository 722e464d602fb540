"""Reads the project's Markdown pages: their links, headings, tables and fenced blocks."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_QUOTED = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: its language, "" for none, and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(language=language, text=text) for language, text in _FENCE.findall(page.read_text())]


def console_blocks(page: Path) -> list[list[str]]:
    """The commands of each ```console block of a page, one string a command, with the lines of a continued one joined.

    In a block with prompts ("$ ") only the lines behind one are commands and the others are output; else every line is one. Comments
    and empty lines are left out.
    """
    return [_commands(block.text) for block in blocks(page) if block.language == "console"]


def words(command: str) -> list[str]:
    """The words of a command line, as a shell splits them."""
    return shlex.split(command)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What a link may name behind "#": the headings, as GitHub writes them."""
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in _HEADING.findall(prose(page))}


def quoted(text: str) -> set[str]:
    """Everything that stands in backticks."""
    return set(_QUOTED.findall(text))


def section(page: Path, heading: str) -> str:
    """What stands below the heading, up to the next one of any level."""
    _, found, rest = prose(page).partition(f"\n{heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    return rest[: match.start()] if (match := _HEADING.search(rest)) else rest


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in `text`, cell by cell, without their heads and rules."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("|") and not line.startswith("|---") and not following.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def _commands(text: str) -> list[str]:
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line and not line.startswith("#")]
