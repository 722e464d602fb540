"""`enclave status`: what a running parent knows of its enclave, as a timeline for people or as JSON."""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from runtime.commands.output import write
from runtime.commands.parent_socket import NoAnswer, ParentSocket, add_options, guarded
from runtime.parent.console import printable

_BAR = 40


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `status`. Exit status: 0 the parent answered, 1 it did not."""
    parser = subparsers.add_parser(
        "status",
        help="what a running parent knows of its enclave",
        description="Show the enclave's state, how its boot went, stage by stage, and how its processes ended. It is the enclave's word.",
    )
    add_options(parser)
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> int:
    return guarded("status", arguments, partial(_show, as_json=arguments.json))


async def _show(parent: ParentSocket, *, as_json: bool) -> int:
    status = await parent.get("/status")
    try:
        metrics = await parent.get("/metrics") if status["connected"] else {}
    except NoAnswer:
        metrics = {}  # the rest is worth showing all the same
    if as_json:
        write(json.dumps(status | {"metrics": metrics}))
    else:
        write("\n".join(printable(line) for line in timeline(status, metrics)))
    return 0


def timeline(status: dict[str, Any], metrics: dict[str, int]) -> Iterator[str]:
    """The lines for a person; what the enclave wrote is not escaped yet."""
    boot = status["boot"]
    if boot is None:
        yield f"{status['enclave']}: no enclave has been heard of"
    else:
        why = f" ({status['reason']})" if status["reason"] else ""
        yield f"{status['enclave']}: {status['state']}{why}, since {duration(boot['state_age_s'])}"
        link = "link up" if status["connected"] else "LINK DOWN"
        yield f"  boot {status['boot_id']}, first heard of {duration(boot['age_s'])} ago, last {duration(boot['heard_s'])} ago, {link}"
    if status["drain_left_s"] is not None:
        yield f"  asked to drain, {duration(status['drain_left_s'])} left"
    tickets = status["tickets"]
    refused = f", none at the last attempt: {tickets['refused']}" if tickets["refused"] else ""
    yield f"  tickets given: {tickets['given']}{refused}"
    yield f"  {_egress(status['egress'])}"
    if boot is not None:
        yield f"  reports dropped: {status['dropped']}"
        yield from _section("boot, from the start of the first process", _stages(boot))
        yield from _section("states, from when the parent first heard", _states(boot["states"]))
        yield from _section("processes ended", _exits(boot["exits"]))
    yield from _section("metrics", _columns((str(name), str(value)) for name, value in sorted(metrics.items())))
    yield from _section("listening", _columns((str(name), str(at)) for name, at in status["listening"].items()))


def _egress(numbers: dict[str, Any]) -> str:
    refused = ", ".join(f"{count} {reason}" for reason, count in numbers["refused"].items())
    return f"egress: {numbers['open']} open, {numbers['connected']} connected so far, refused: {refused or 'none'}"


def duration(seconds: float) -> str:
    """Two units at most, such as "1.2 s", "3 min 12 s", "5 d 4 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = math.floor(seconds / 60)
    if minutes < 60:
        return f"{minutes} min {math.floor(seconds % 60)} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield title
        yield from (f"  {line}" for line in found)


def _stages(boot: dict[str, Any]) -> Iterator[str]:
    """Each stage with when it ended, what it took, and where that lies between the start and the end of all of them."""
    stages = sorted(boot["stages"], key=lambda stage: stage["ended_ms"])
    whole = max((stage["ended_ms"] for stage in stages), default=0) or 1
    for stage in stages:
        begin = _BAR * max(0, stage["ended_ms"] - stage["took_ms"]) // whole
        length = max(1, _BAR * stage["ended_ms"] // whole - begin)
        bar = " " * begin + "#" * length
        yield f"{stage['stage']:<10} {stage['ended_ms'] / 1000:9.3f} s  {stage['took_ms'] / 1000:8.3f} s  {bar}"
    if boot["failed_stage"]:
        yield f"{boot['failed_stage']:<10} failed here"


def _states(states: list[dict[str, Any]]) -> Iterator[str]:
    for state in states:
        yield f"{state['at_s']:9.3f} s  {state['state']} {state['reason']}".rstrip()


def _exits(exits: list[dict[str, Any]]) -> Iterator[str]:
    for ended in exits:
        how = f"code {ended['code']}" if ended["signal"] is None else f"signal {ended['signal']}"
        yield f"{ended['at_s']:9.3f} s  {ended['process']} {how}"


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    found = list(rows)
    width = min(60, max((len(name) for name, _ in found), default=0))
    for name, value in found:
        yield f"{name:<{width}}  {value}"
